//! Webhook: batches as JSON, by POST, signed if a key is given.
//!
//! The body is
//! ```json
//! {"stream":"UUID","lines":[{"seq":41,"id":"UUID","line":{…}},{"seq":42,"id":"UUID","line":{…}}]}
//! ```
//! Each `line` is what the sink's format, a JSON one, makes of it. `id` is the same whenever the line
//! is sent again: by it a receiver drops what it has. `seq` counts the lines of a stream without a gap:
//! by it a receiver sees what it never got.
//!
//! The signature is that of Standard Webhooks 1.0.0: the header `webhook-signature` holds `v1,` and the
//! base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`, with `webhook-id`, `webhook-timestamp` (seconds
//! since 1970) and the body's bytes as they were received, still compressed if they are. Every library
//! for that standard verifies it; by hand:
//! ```python
//! expected = hmac.new(key, b"%s.%s." % (webhook_id, webhook_timestamp) + body, "sha256").digest()
//! fresh = abs(time.time() - int(webhook_timestamp)) < 300
//! ok = fresh and any(hmac.compare_digest(b"v1," + base64.b64encode(expected), given)
//!                    for given in webhook_signature.split())
//! ```
//! The key is the word in its file; one that begins with `whsec_` is base64 behind that.

use std::path::PathBuf;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::http::{Client, Secret, Setup, SetupError};
use crate::remote::{Record, Refused, Remote};

/// Sends batches to a webhook.
pub struct Webhook {
    client: Client,
    name: String,
    stream: String,
    key: Option<Secret>,
}

impl Webhook {
    /// Prepares it. `stream` is the id of the spool's stream; `key_file` holds the key of the
    /// signature.
    ///
    /// # Errors
    /// As for [`Client::open`], and when the key's file is not usable.
    pub fn open(
        setup: &Setup,
        key_file: Option<&PathBuf>,
        stream: String,
    ) -> Result<Self, SetupError> {
        let client = Client::open(setup)?;
        let key = key_file.map(|path| Secret::open(path)).transpose();
        let key = key.map_err(SetupError::Secret)?;
        let name = format!("webhook {}", client.shown());
        Ok(Self { client, name, stream, key })
    }
}

impl Remote for Webhook {
    fn name(&self) -> &str {
        &self.name
    }

    fn deliver(&mut self, batch: &[Record]) -> Result<(), Refused> {
        let body = self.client.pack(body(&self.stream, batch));
        let range = batch.first().zip(batch.last()).map(|(first, last)| (first.seq, last.seq));
        let (first, last) = range.unwrap_or_default();
        let id = format!("{}.{first}-{last}", self.stream);
        let mut headers = vec![("webhook-id", id.clone())];
        if let Some(key) = &mut self.key {
            let key = decoded(key.get().map_err(Refused::later)?)?;
            let timestamp = now().to_string();
            let signature = sign(&key, &id, &timestamp, &body);
            headers.push(("webhook-timestamp", timestamp));
            headers.push(("webhook-signature", signature));
        }
        let answer = self.client.post("application/json", &headers, &body)?;
        answer.success(|_| None).map(|_| ())
    }
}

fn body(stream: &str, batch: &[Record]) -> Vec<u8> {
    let bytes: usize = batch.iter().map(|record| record.bytes.len() + 96).sum();
    let mut out = Vec::with_capacity(bytes + 96);
    out.extend_from_slice(b"{\"stream\":\"");
    out.extend_from_slice(stream.as_bytes());
    out.extend_from_slice(b"\",\"lines\":[");
    for (index, record) in batch.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let id = serde_json::Value::from(record.id.as_str());
        out.extend_from_slice(format!("{{\"seq\":{},\"id\":{id},\"line\":", record.seq).as_bytes());
        out.extend_from_slice(record.bytes.trim_ascii_end());
        out.push(b'}');
    }
    out.extend_from_slice(b"]}\n");
    out
}

fn decoded(key: &str) -> Result<Vec<u8>, Refused> {
    match key.strip_prefix("whsec_") {
        None => Ok(key.as_bytes().to_vec()),
        Some(base64) => STANDARD
            .decode(base64)
            .map_err(|_| Refused::later("the signing key is not base64 behind `whsec_`")),
    }
}

fn sign(key: &[u8], id: &str, timestamp: &str, body: &[u8]) -> String {
    // HMAC takes a key of any length (RFC 2104, section 3): there is no error to come.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpfwatch_core::time::Timestamp;

    #[test]
    fn signs_as_the_standard_does() {
        // The example of the Standard Webhooks libraries' own tests.
        let key = decoded("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature =
            sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b"{\"test\": 2432232314}");
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(decoded("whsec_!").is_err());
        assert_eq!(decoded("plain").unwrap(), b"plain");
    }

    #[test]
    fn a_body_is_json_with_every_line() {
        let record = |seq, bytes: &[u8]| Record {
            seq,
            id: format!("id\"{seq}"),
            time: Timestamp::default(),
            bytes: bytes.to_vec(),
        };
        let body = body("s", &[record(1, b"{\"a\":1}\n"), record(2, b"{\"a\":2}\n")]);
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"stream": "s", "lines": [
                {"seq": 1, "id": "id\"1", "line": {"a": 1}},
                {"seq": 2, "id": "id\"2", "line": {"a": 2}},
            ]})
        );
    }
}
