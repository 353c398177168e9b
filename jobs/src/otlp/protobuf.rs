//! As much of the wire format of protobuf as metrics take: messages, strings, and numbers of fixed and of variable length.

/// A message that is being written, field by field.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

/// How the value of a field is written.
#[derive(Clone, Copy)]
enum Wire {
    Variable = 0,
    Fixed64 = 1,
    Bytes = 2,
}

impl Message {
    pub(super) fn number(mut self, field: u32, value: u64) -> Self {
        self.tag(field, Wire::Variable);
        self.variable(value);
        self
    }

    pub(super) fn fixed(mut self, field: u32, value: u64) -> Self {
        self.tag(field, Wire::Fixed64);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn double(self, field: u32, value: f64) -> Self {
        self.fixed(field, value.to_bits())
    }

    pub(super) fn text(self, field: u32, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    pub(super) fn message(self, field: u32, value: Message) -> Self {
        self.bytes(field, &value.0)
    }

    pub(super) fn messages(self, field: u32, values: impl IntoIterator<Item = Message>) -> Self {
        let add = |message: Self, value| message.message(field, value);
        values.into_iter().fold(self, add)
    }

    /// Repeated numbers of 64 bits, packed.
    pub(super) fn packed(self, field: u32, values: impl IntoIterator<Item = u64>) -> Self {
        let bytes: Vec<u8> = values.into_iter().flat_map(u64::to_le_bytes).collect();
        self.bytes(field, &bytes)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        self.tag(field, Wire::Bytes);
        self.variable(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn tag(&mut self, field: u32, wire: Wire) {
        self.variable(u64::from(field) << 3 | wire as u64);
    }

    /// Seven bits a byte, the lowest first; the highest bit says that more follow.
    fn variable(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the format's own description.
    #[test]
    fn fields_are_written_as_the_format_says() {
        assert_eq!(Message::default().number(1, 150).0, [0x08, 0x96, 0x01]);
        let text = Message::default().text(2, "testing").0;
        assert_eq!(text, b"\x12\x07testing");
        let inner = Message::default().number(1, 150);
        let outer = Message::default().message(3, inner).0;
        assert_eq!(outer, [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let double = Message::default().double(16, 1.0).0;
        assert_eq!(double, [0x81, 0x01, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        let packed = Message::default().packed(4, [1, 2]).0;
        assert_eq!(packed.len(), 2 + 16);
        assert_eq!(packed[..3], [0x22, 16, 1]);
    }
}
