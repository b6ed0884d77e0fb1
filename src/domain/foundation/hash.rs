//! Hashes that are stored, so their form never changes: golden vectors below pin them.

use ring::digest::{SHA256, digest};
use uuid::Uuid;

/// SHA-256 as 32 bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// SHA-256 as 64 lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    sha256(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The first 64 bits of SHA-256, big-endian, as a signed integer (a Postgres bigint).
pub fn sha256_i64(bytes: &[u8]) -> i64 {
    i64::from_be_bytes(sha256(bytes)[..8].try_into().expect("8 of 32 bytes"))
}

/// The first 53 bits of SHA-256 as a positive integer: exact in every language that reads it.
pub fn sha256_i53(bytes: &[u8]) -> i64 {
    ((sha256_i64(bytes) as u64) >> 11) as i64
}

/// The stored key of an outside id: a canonical lower-case UUID as it is, any other text by 128 bits
/// of its SHA-256, marked UUIDv8 (so the two can't be confused unless the id itself is a UUIDv8).
pub fn text_key(text: &str) -> Uuid {
    if let Some(uuid) = canonical_uuid(text) {
        return uuid;
    }
    let bytes: [u8; 16] = sha256(text.as_bytes())[..16].try_into().expect("16 of 32 bytes");
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Only the form `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` in lower case counts as a UUID.
fn canonical_uuid(text: &str) -> Option<Uuid> {
    if text.len() != 36 || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let uuid = Uuid::try_parse(text).ok()?;
    (uuid.hyphenated().to_string() == text).then_some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_vectors() {
        assert_eq!(sha256_hex(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(sha256_i64(b"abc"), 0xba7816bf8f01cfea_u64 as i64);
        assert_eq!(sha256_i53(b"abc"), (0xba7816bf8f01cfea_u64 >> 11) as i64);
        assert_eq!(text_key("abc").to_string(), "ba7816bf-8f01-8fea-8141-40de5dae2223");
        let uuid = "018f4e2a-7c1b-7def-8a2b-0123456789ab";
        assert_eq!(text_key(uuid).to_string(), uuid);
        assert_ne!(text_key(&uuid.to_uppercase()).to_string(), uuid);
        assert_ne!(text_key(&uuid.replace('-', "")).to_string(), uuid);
    }
}
