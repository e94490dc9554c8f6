//! Payloads that are sent from where they are.

use std::ops::Deref;
use std::sync::Arc;

/// A payload that goes to the socket without being copied, in pieces as the socket takes them. Cheap to clone.
///
/// It can be made of whatever owns bytes or shares them:
///
/// ```
/// use std::sync::Arc;
/// use dunlin::blocking::Payload;
///
/// let image: Vec<u8> = vec![7; 1 << 20];
/// let payload = Payload::from(image); // moved, not copied
/// assert_eq!(payload.len(), 1 << 20);
/// let _ = (Payload::from(Arc::<[u8]>::from([1, 2, 3])), Payload::from("text".to_owned()), Payload::from(&b"static"[..]));
/// ```
#[derive(Clone)]
pub struct Payload(Bytes);

#[derive(Clone)]
enum Bytes {
    Fixed(&'static [u8]),
    Owned(Arc<Vec<u8>>),
    Shared(Arc<[u8]>),
    #[cfg(feature = "tokio")]
    Bytes(bytes::Bytes),
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Fixed(bytes) => bytes,
            Bytes::Owned(bytes) => bytes,
            Bytes::Shared(bytes) => bytes,
            #[cfg(feature = "tokio")]
            Bytes::Bytes(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Bytes::Owned(Arc::new(bytes)))
    }
}

impl From<Box<[u8]>> for Payload {
    fn from(bytes: Box<[u8]>) -> Self {
        bytes.into_vec().into()
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<Arc<[u8]>> for Payload {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self(Bytes::Shared(bytes))
    }
}

impl From<&'static [u8]> for Payload {
    fn from(bytes: &'static [u8]) -> Self {
        Self(Bytes::Fixed(bytes))
    }
}

#[cfg(feature = "tokio")]
impl From<bytes::Bytes> for Payload {
    fn from(bytes: bytes::Bytes) -> Self {
        Self(Bytes::Bytes(bytes))
    }
}

/// Shows how long it is, not what is in it.
impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Payload").field("len", &self.len()).finish()
    }
}
