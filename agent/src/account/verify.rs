//! Whether the account that a member names says so too: its DID document, its server, the record there.
//!
//! Invariant: "it does not say so" needs an answer that says that; whoever does not answer leaves what was known. Only asked
//! when the person asks, because those servers learn who looks, and at whom.
//! Spec: docs/sealing.md#attestation.

use serde::Deserialize;
use serde_json::Value;
use weft_relay::{DidClient, DidClientError};

use super::attest::{COLLECTION, Record};
use super::root_did;

/// What is shown of a server's URL, or of why it does not answer.
const SHOWN_MAX: usize = 120;
/// Longest handle (a DNS name).
const HANDLE_BYTES_MAX: usize = 253;

/// What an account said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// That it is this member. The handle is what it calls itself: nobody else was asked whether it is its.
    Yes { handle: Option<String> },
    /// Nothing of the kind; how so.
    No(&'static str),
}

#[derive(Deserialize)]
struct Document {
    id: String,
    #[serde(default, rename = "alsoKnownAs")]
    names: Vec<Value>,
    #[serde(default)]
    service: Vec<Value>,
}

impl Document {
    /// Where the account is.
    fn server(&self) -> Option<&str> {
        let text = |service: &Value, key: &str| service.get(key).and_then(Value::as_str).map(str::to_owned);
        let is_server = |service: &&Value| {
            let id = text(service, "id").unwrap_or_default();
            let ours = id.strip_prefix(&self.id).unwrap_or(&id) == "#atproto_pds";
            ours && text(service, "type").as_deref() == Some("AtprotoPersonalDataServer")
        };
        self.service.iter().find(is_server)?.get("serviceEndpoint")?.as_str()
    }

    fn handle(&self) -> Option<String> {
        let names = self.names.iter().filter_map(Value::as_str);
        names.filter_map(|name| name.strip_prefix("at://")).find(|name| is_handle(name)).map(str::to_owned)
    }
}

/// A handle as the AT Protocol has them: a DNS name, in ASCII.
fn is_handle(text: &str) -> bool {
    let label = |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    text.len() <= HANDLE_BYTES_MAX && text.contains('.') && text.split('.').all(label)
}

/// A text that a stranger had a hand in (a URL, a certificate's names), fit for a terminal.
fn shown(text: &str) -> String {
    text.chars().filter(|c| matches!(c, ' '..='~')).take(SHOWN_MAX).collect()
}

/// Asks the account of a DID whether it is the member of this root; an error says who does not answer.
pub(crate) async fn ask(client: &DidClient, root: &[u8; 32], did: &str) -> Result<Said, String> {
    let silent = |who: &str, error: &DidClientError| format!("{who} does not answer: {}", shown(&error.to_string()));
    let document = match client.document(did).await {
        Ok(Some(document)) => document,
        Ok(None) => return Ok(Said::No("there is no such account (any more)")),
        Err(DidClientError::Unsupported) => return Ok(Said::No("only did:plc and did:web can be looked up")),
        Err(error) if did.starts_with("did:plc:") => return Err(silent("the directory of accounts (plc_url)", &error)),
        Err(error) => return Err(silent("its own server", &error)),
    };
    let document: Option<Document> = serde_json::from_slice(&document).ok();
    let Some(document) = document.filter(|document| document.id == did) else {
        return Ok(Said::No("what stands for its DID is no document of it"));
    };
    let Some(server) = document.server() else { return Ok(Said::No("it has no server of the AT Protocol")) };
    let root_did = root_did(root);
    let path = format!(
        "/xrpc/com.atproto.repo.getRecord?repo={}&collection={COLLECTION}&rkey={}",
        did.replace('%', "%25"),
        root_did.trim_start_matches("did:key:")
    );
    let who = format!("its server {}", shown(server));
    let answer = client.get(server, &path).await.map_err(|error| silent(&who, &error))?;
    match answer.status {
        200 => Ok(judge(&answer.body, root, did, &document)),
        400 | 404 => Ok(Said::No("it has no record for this member")),
        status => Err(format!("{who} does not answer: it says {status}")),
    }
}

fn judge(body: &[u8], root: &[u8; 32], did: &str, document: &Document) -> Said {
    #[derive(Deserialize)]
    struct Answer {
        value: Record,
    }
    match serde_json::from_slice::<Answer>(body) {
        Err(_) => Said::No("its record is of another kind"),
        Ok(Answer { value }) if !value.names(root) => Said::No("its record names another key"),
        Ok(Answer { value }) if !value.holds(root, did) => Said::No("this member's key did not sign its record"),
        Ok(_) => Said::Yes { handle: document.handle() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::OsRandom;
    use serde_json::json;
    use weft_agent_core::identity::LocalIdentity;

    fn document(json: &Value) -> Document {
        serde_json::from_value(json.clone()).unwrap()
    }

    /// The server is the one service of that name and kind, whatever else a document holds; a handle is a DNS name.
    #[test]
    fn a_document_names_server_and_handle() {
        let service = |id: &str, kind: &str| json!({"id": id, "type": kind, "serviceEndpoint": "https://pds.example"});
        let kind = "AtprotoPersonalDataServer";
        for id in ["#atproto_pds", "did:web:a#atproto_pds"] {
            let found = json!({"@context": ["x", {}], "id": "did:web:a", "service": [7, service("#x", kind), service(id, kind)]});
            assert_eq!(document(&found).server(), Some("https://pds.example"), "{id}");
        }
        for other in [service("#atproto_pds", "Other"), service("did:web:b#atproto_pds", kind)] {
            assert_eq!(document(&json!({"id": "did:web:a", "service": [other]})).server(), None);
        }
        let names = ["https://x", "at://a\u{1b}[2J.example", "at://\u{202e}a.example", "at://plain", "at://a.example"];
        assert_eq!(document(&json!({"id": "a", "alsoKnownAs": names})).handle().as_deref(), Some("a.example"));
        assert_eq!(shown("https://a\u{1b}[2J\u{202e}\n"), "https://a[2J");
    }

    /// A record counts if it names the member and the member's root signed this DID; anything else says how not.
    #[test]
    fn a_record_says_which_member_it_is() {
        let ada = LocalIdentity::generate(&mut OsRandom, "ada", "here");
        let ben = LocalIdentity::generate(&mut OsRandom, "ben", "here").root_public.sign.0;
        let root = ada.root_public.sign.0;
        let of = document(&json!({"id": "did:plc:a", "alsoKnownAs": ["at://a.example"]}));
        let record = serde_json::to_value(Record::new(&ada, "did:plc:a").unwrap()).unwrap();
        let said = |value: &Value, root: &[u8; 32], did: &str| {
            judge(json!({"value": value}).to_string().as_bytes(), root, did, &of)
        };
        assert_eq!(said(&record, &root, "did:plc:a"), Said::Yes { handle: Some("a.example".into()) });
        assert_eq!(said(&record, &ben, "did:plc:a"), Said::No("its record names another key"));
        assert_eq!(said(&record, &root, "did:plc:b"), Said::No("this member's key did not sign its record"));
        assert_eq!(said(&json!({"text": "hello"}), &root, "did:plc:a"), Said::No("its record is of another kind"));
    }
}
