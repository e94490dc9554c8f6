//! AES-128-GCM that looks at what it has decrypted.
//!
//! `embedded-tls` 0.19 parses protected handshake messages without checking that their framing adds up, and panics on
//! any but a session ticket after the handshake: a broker that sends a KeyUpdate would halt the device. The cipher
//! is the one place of ours that sees the plaintext before the crate does, and a refusal here is an ordinary error
//! there.

use aes_gcm::aead::consts::{U0, U12, U16};
use aes_gcm::aead::{AeadCore, AeadInPlace, Buffer, Key, KeyInit, KeySizeUser, Nonce, Tag};
use aes_gcm::{Aes128Gcm, aead};
use embedded_tls::blocking::{Aes128GcmSha256, Sha256, TlsCipherSuite};

use super::gate::{IN_HANDSHAKE, IN_SESSION};

/// TLS_AES_128_GCM_SHA256 with the checked cipher.
pub struct Suite;

impl TlsCipherSuite for Suite {
    const CODE_POINT: u16 = Aes128GcmSha256::CODE_POINT;
    type Cipher = Checked;
    type KeyLen = U16;
    type IvLen = U12;
    type Hash = Sha256;
    type LabelBufferSize = <Aes128GcmSha256 as TlsCipherSuite>::LabelBufferSize;
}

/// AES-128-GCM, and a look at the plaintext.
pub struct Checked(Aes128Gcm);

impl KeySizeUser for Checked {
    type KeySize = U16;
}

impl KeyInit for Checked {
    fn new(key: &Key<Self>) -> Self {
        Self(Aes128Gcm::new(key))
    }
}

impl AeadCore for Checked {
    type NonceSize = U12;
    type TagSize = U16;
    type CiphertextOverhead = U0;
}

impl AeadInPlace for Checked {
    fn encrypt_in_place_detached(
        &self,
        nonce: &Nonce<Self>,
        header: &[u8],
        bytes: &mut [u8],
    ) -> aead::Result<Tag<Self>> {
        self.0.encrypt_in_place_detached(nonce, header, bytes)
    }

    fn decrypt_in_place_detached(
        &self,
        nonce: &Nonce<Self>,
        header: &[u8],
        bytes: &mut [u8],
        tag: &Tag<Self>,
    ) -> aead::Result<()> {
        self.0.decrypt_in_place_detached(nonce, header, bytes, tag)
    }

    fn decrypt_in_place(&self, nonce: &Nonce<Self>, header: &[u8], record: &mut dyn Buffer) -> aead::Result<()> {
        let [kind, version @ .., high, low] = *header.first_chunk::<5>().ok_or(aead::Error)?;
        // The gate has put the phase here; what the peer has authenticated is 3.3.
        let session = version == IN_SESSION;
        let [major, minor] = IN_HANDSHAKE;
        self.0.decrypt_in_place(nonce, &[kind, major, minor, high, low], record)?;
        #[cfg(test)]
        super::tests::spoil(record.as_mut());
        match is_acceptable(record.as_ref(), session) {
            true => Ok(()),
            false => Err(aead::Error),
        }
    }
}

/// Whether this plaintext, with its content type and padding, may come now.
fn is_acceptable(plaintext: &[u8], session: bool) -> bool {
    const ALERT: u8 = 21;
    const HANDSHAKE: u8 = 22;
    const APPLICATION_DATA: u8 = 23;
    let Some(last) = plaintext.iter().rposition(|byte| *byte != 0) else { return false };
    match plaintext.get(..=last).and_then(<[u8]>::split_last) {
        Some((&HANDSHAKE, messages)) => handshake_is_acceptable(messages, session),
        Some((&ALERT, alert)) => alert.len() == 2,
        Some((&APPLICATION_DATA, _)) => session,
        _ => false,
    }
}

/// Whole messages, of the kinds that may come now. A message that spans records is not supported by `embedded-tls`.
fn handshake_is_acceptable(mut messages: &[u8], session: bool) -> bool {
    const NEW_SESSION_TICKET: u8 = 4;
    const ENCRYPTED_EXTENSIONS: u8 = 8;
    const CERTIFICATE: u8 = 11;
    const CERTIFICATE_REQUEST: u8 = 13;
    const CERTIFICATE_VERIFY: u8 = 15;
    const FINISHED: u8 = 20;
    if messages.is_empty() {
        return false;
    }
    while let Some(([kind, a, b, c], rest)) = messages.split_first_chunk() {
        let len = u32::from_be_bytes([0, *a, *b, *c]);
        let Some((_, rest)) = usize::try_from(len).ok().and_then(|len| rest.split_at_checked(len)) else {
            return false;
        };
        let allowed = match *kind {
            NEW_SESSION_TICKET => session,
            ENCRYPTED_EXTENSIONS | CERTIFICATE | CERTIFICATE_REQUEST | CERTIFICATE_VERIFY => !session,
            // Nothing may follow under the same keys.
            FINISHED => !session && len == 32 && rest.is_empty(),
            _ => false,
        };
        if !allowed {
            return false;
        }
        messages = rest;
    }
    messages.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_come_now_is_acceptable() {
        let ticket = [4, 0, 0, 2, 9, 9, 22, 0, 0];
        let key_update = [24, 0, 0, 1, 0, 22];
        let extensions = [8, 0, 0, 2, 0, 0, 22];
        assert!(is_acceptable(&ticket, true) && !is_acceptable(&ticket, false));
        assert!(!is_acceptable(&extensions, true) && is_acceptable(&extensions, false));
        assert!(!is_acceptable(&key_update, true) && !is_acceptable(&key_update, false));
        assert!(is_acceptable(&[23], true), "no data is data");
        assert!(!is_acceptable(&[23], false));
        for session in [false, true] {
            assert!(is_acceptable(&[1, 0, 21], session));
            assert!(!is_acceptable(&[1, 21], session));
            assert!(!is_acceptable(&[], session) && !is_acceptable(&[0, 0], session), "no content type");
            assert!(!is_acceptable(&[22], session), "no message");
            assert!(!is_acceptable(&[8, 0, 0, 3, 0, 0, 22], session), "a message that is not whole");
            assert!(!is_acceptable(&[8, 0, 22], session));
        }
    }

    #[test]
    fn nothing_follows_a_finished() {
        let mut messages = [0; 37];
        messages[..4].copy_from_slice(&[20, 0, 0, 32]);
        messages[36] = 22;
        assert!(is_acceptable(&messages, false));
        messages[36] = 8;
        assert!(!is_acceptable(&messages, false));
    }
}
