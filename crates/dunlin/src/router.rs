//! Which filter a message belongs to, and what is to be done with it.

use dunlin_core::{QoS, topic};

/// A table of topic filters, each with what handles its messages: a function, a closure, a channel, or a value to
/// match on.
///
/// What is subscribed to is what is handled: [`Builder::subscribe_all`](crate::host::Builder::subscribe_all) takes the
/// table. MQTT 3.1.1 does not say which subscription a message belongs to, so the table looks; with overlapping filters
/// a message belongs to several, and the server may send it once or once for each.
///
/// ```
/// use dunlin::QoS;
/// use dunlin::router::Router;
///
/// struct App { setpoint: f32, is_lit: bool }
/// type Handler = fn(&mut App, &[&str], &str);
///
/// let router = Router::<Handler>::new()
///     .route("room/+/setpoint", QoS::AtLeastOnce, |app, _, text| app.setpoint = text.parse().unwrap_or(app.setpoint))
///     .route("room/+/light", QoS::AtMostOnce, |app, _, text| app.is_lit = text == "on");
/// let mut app = App { setpoint: 20.0, is_lit: false };
///
/// // For each message that arrives: its topic, and its payload as text.
/// for (topic, text) in [("room/4/setpoint", "21.5"), ("room/4/light", "on"), ("room/4/noise", "x")] {
///     if let Some((index, handle)) = router.find(topic) {
///         assert!(index < 2);
///         handle(&mut app, &topic.split('/').collect::<Vec<_>>(), text);
///     }
/// }
/// assert!(app.setpoint == 21.5 && app.is_lit);
/// ```
#[derive(Clone, Debug)]
pub struct Router<H> {
    routes: Vec<(String, QoS, H)>,
}

impl<H> Router<H> {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self { routes: Vec::new() }
    }

    /// Adds a filter, the quality of service to subscribe with, and what handles its messages. The first has the index
    /// 0.
    #[must_use]
    pub fn route(mut self, filter: &str, qos: QoS, handler: H) -> Self {
        self.routes.push((filter.to_owned(), qos, handler));
        self
    }

    /// Index and handler of the first filter that matches this topic name.
    pub fn find(&self, topic: &str) -> Option<(usize, &H)> {
        self.find_all(topic).next()
    }

    /// The same, to call handlers that change.
    pub fn find_mut(&mut self, topic: &str) -> Option<(usize, &mut H)> {
        let mut routes = self.routes.iter_mut().enumerate();
        routes.find(|(_, (filter, ..))| topic::matches(filter, topic)).map(|(index, (.., handler))| (index, handler))
    }

    /// Index and handler of each filter that matches this topic name.
    pub fn find_all<'a>(&'a self, topic: &str) -> impl Iterator<Item = (usize, &'a H)> {
        let routes = self.routes.iter().enumerate();
        routes
            .filter(move |(_, (filter, ..))| topic::matches(filter, topic))
            .map(|(index, (.., handler))| (index, handler))
    }

    /// All filters, with the quality of service of each.
    pub fn filters(&self) -> impl Iterator<Item = (&str, QoS)> {
        self.routes.iter().map(|(filter, qos, _)| (filter.as_str(), *qos))
    }
}

impl<H> Default for Router<H> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_several_filters_that_match_is_found_and_all_of_them_are_listed() {
        let mut router = Router::new().route("a/+", QoS::AtMostOnce, 'x').route("a/b", QoS::ExactlyOnce, 'y').route(
            "#",
            QoS::AtLeastOnce,
            'z',
        );
        assert_eq!(router.find("a/b"), Some((0, &'x')));
        assert_eq!(router.find_all("a/b").collect::<Vec<_>>(), [(0, &'x'), (1, &'y'), (2, &'z')]);
        assert_eq!(router.find("$SYS/x"), None);
        if let Some((_, handler)) = router.find_mut("c") {
            *handler = '!';
        }
        assert_eq!(router.find("c"), Some((2, &'!')));
        assert_eq!(router.filters().count(), 3);
    }
}
