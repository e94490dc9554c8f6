//! What must hold between any two calls, for model checkers and tests.

use super::Session;

impl Session<'_> {
    /// Checks what must hold between any two calls.
    ///
    /// # Errors
    /// The sentence that does not hold.
    pub fn invariant(&self) -> Result<(), &'static str> {
        self.outbound.invariant()?;
        self.inbound.invariant()?;
        let ids = || self.outbound.ids().chain(self.filters.request_ids());
        for (index, id) in ids().enumerate() {
            if id != 0 && ids().skip(index.saturating_add(1)).any(|other| other == id) {
                return Err("a packet identifier is used twice");
            }
        }
        Ok(())
    }
}
