//! The public functions of dunlin-core, by the names that rustdoc gives them.
//!
//! A root is a static that holds a function's address: whoever keeps the static keeps the function and all that it
//! can reach. What is generic is named with one choice of its parameters; an iterator is driven to its end.

use core::ops::Deref;

use dunlin_core::memory::{filter_len, rx_len, tx_len};
use dunlin_core::topic::{Levels, is_filter, is_name, is_text, matches};
use dunlin_core::*;

/// The address of a function.
pub struct Root(*const ());

// SAFETY: nobody uses the address in this program; the linker reads it.
unsafe impl Sync for Root {}

/// One line per root.
macro_rules! roots {
    ($($name:literal => $function:expr,)*) => {
        $(
            const _: () = {
                #[used]
                #[unsafe(export_name = $name)]
                #[unsafe(link_section = ".roots")]
                static ROOT: Root = Root($function as *const ());
            };
        )*
    };
}

type Memories = Storage<256, 64, 4>;

roots! {
    "Chunk::is_last" => Chunk::is_last,
    "Chunk::receipt" => Chunk::receipt,
    "Fault::may_heal" => Fault::may_heal,
    "Filter::matches" => Filter::matches,
    "Filter::new" => Filter::new,
    "Filter::qos" => Filter::qos,
    "Filter::text" => Filter::text,
    "Inbox::capacity" => Inbox::capacity,
    "Inbox::clear" => Inbox::clear,
    "Inbox::event" => Inbox::event,
    "Inbox::filled" => Inbox::filled,
    "Inbox::growing" => Inbox::growing,
    "Inbox::is_amid_packet" => Inbox::is_amid_packet,
    "Inbox::is_empty" => Inbox::is_empty,
    "Inbox::new" => Inbox::new,
    "Inbox::pending" => Inbox::pending,
    "Inbox::push" => Inbox::push,
    "Inbox::space" => Inbox::space,
    "Inbox::wants" => Inbox::wants,
    "Instant::after_millis" => Instant::after_millis,
    "Instant::as_millis" => Instant::as_millis,
    "Instant::from_millis" => Instant::from_millis,
    "Instant::millis_since" => Instant::millis_since,
    "Levels::deref" => Levels::deref,
    "Levels::of" => Levels::of,
    "Message::levels" => Message::levels,
    "Message::receipt" => Message::receipt,
    "Message::text" => Message::text,
    "Options::answer_timeout" => Options::answer_timeout,
    "Options::check" => Options::check,
    "Options::credentials" => Options::credentials,
    "Options::durable" => Options::durable,
    "Options::keep_alive" => Options::keep_alive,
    "Options::manual_acks" => Options::manual_acks,
    "Options::new" => Options::new,
    "Options::oversize" => Options::oversize,
    "Options::persistent" => Options::persistent,
    "Options::set_client" => Options::set_client,
    "Options::stream_large" => Options::stream_large,
    "Options::subscriptions" => Options::subscriptions,
    "Options::user_name" => Options::user_name,
    "Options::will" => Options::will,
    "Options::window" => Options::window,
    "PacketId::get" => PacketId::get,
    "PacketId::new" => PacketId::new,
    "Publish::at_least_once" => Publish::at_least_once,
    "Publish::exactly_once" => Publish::exactly_once,
    "Publish::is_retain" => Publish::is_retain,
    "Publish::new" => Publish::new,
    "Publish::payload" => Publish::payload,
    "Publish::qos" => Publish::qos,
    "Publish::retain" => Publish::retain,
    "Publish::topic" => Publish::topic,
    "Publish::with_qos" => Publish::with_qos,
    "QoS::bits" => QoS::bits,
    "QoS::from_bits" => QoS::from_bits,
    "Receipt::from_bytes" => Receipt::from_bytes,
    "Receipt::packet_id" => Receipt::packet_id,
    "Receipt::to_bytes" => Receipt::to_bytes,
    "Received::default" => Received::default,
    "Refusal::may_heal" => Refusal::may_heal,
    "ReturnCodes::all_granted" => ReturnCodes::all_granted,
    "ReturnCodes::as_bytes" => ReturnCodes::as_bytes,
    "ReturnCodes::granted" => granted,
    "Session::acknowledge" => Session::acknowledge,
    "Session::check_subscribe" => Session::check_subscribe,
    "Session::check_unsubscribe" => Session::check_unsubscribe,
    "Session::close" => Session::close,
    "Session::deadline" => Session::deadline,
    "Session::fault" => Session::fault,
    "Session::give_up" => Session::give_up,
    "Session::has_said_goodbye" => Session::has_said_goodbye,
    "Session::hold" => Session::hold,
    "Session::ignored_count" => Session::ignored_count,
    "Session::is_connected" => Session::is_connected,
    "Session::is_idle" => Session::is_idle,
    "Session::is_ping_unanswered" => Session::is_ping_unanswered,
    "Session::is_stalled" => Session::is_stalled,
    "Session::lost" => Session::lost,
    "Session::mark_stored" => Session::mark_stored,
    "Session::marks" => last_mark,
    "Session::new" => Session::new,
    "Session::next_id" => Session::next_id,
    "Session::next_mark" => Session::next_mark,
    "Session::open" => Session::open,
    "Session::options" => Session::options,
    "Session::outgoing_count" => Session::outgoing_count,
    "Session::ping_past" => Session::ping_past,
    "Session::poll" => Session::poll,
    "Session::poll_common" => Session::poll_common,
    "Session::poll_ready" => Session::poll_ready,
    "Session::publish" => Session::publish,
    "Session::publish_common" => Session::publish_common,
    "Session::publish_external" => Session::publish_external,
    "Session::publish_past" => Session::publish_past,
    "Session::publish_replacing" => Session::publish_replacing,
    "Session::publish_stored" => Session::publish_stored,
    "Session::restore" => Session::restore,
    "Session::skipped_count" => Session::skipped_count,
    "Session::subscribe" => Session::subscribe,
    "Session::subscribe_each" => subscribe_each,
    "Session::subscribe_stored" => Session::subscribe_stored,
    "Session::supplied" => Session::supplied,
    "Session::transmit" => Session::transmit,
    "Session::transmit_common" => Session::transmit_common,
    "Session::unsubscribe" => Session::unsubscribe,
    "Session::unsubscribe_each" => unsubscribe_each,
    "Session::withdraw" => Session::withdraw,
    "Slot::default" => Slot::default,
    "Storage::default" => Memories::default,
    "Storage::new" => Memories::new,
    "Storage::split" => Memories::split,
    "Topic::as_bytes" => Topic::as_bytes,
    "Topic::as_str" => Topic::as_str,
    "Topic::deref" => Topic::deref,
    "Topic::eq" => equals,
    "Topic::from_store" => Topic::from_store,
    "Topic::levels" => Topic::levels,
    "filter_len" => filter_len,
    "is_filter" => is_filter,
    "is_name" => is_name,
    "is_text" => is_text,
    "matches" => matches,
    "rx_len" => rx_len,
    "tx_len" => tx_len,
}

fn granted(codes: &ReturnCodes<'_>) -> Option<QoS> {
    codes.granted().last().flatten()
}

fn subscribe_each(session: &mut Session<'_>, filters: &[Filter<'_>]) -> Result<PacketId, SubscribeError> {
    session.subscribe_each(filters.iter().copied())
}

fn unsubscribe_each(session: &mut Session<'_>, filters: &[&str]) -> Result<PacketId, SubscribeError> {
    session.unsubscribe_each(filters.iter().copied())
}

fn last_mark(session: &Session<'_>) -> Option<Mark> {
    session.marks().last()
}

fn equals(topic: &Topic<'_>, text: &str) -> bool {
    *topic == *text || *topic == text
}
