//! What a refusal by the hub means, in one sentence that says what to do. No header, no query and no token is ever part of one.

use super::client::{Answer, Client, shown, text};
use anyhow::{Error, anyhow};

impl Client {
    /// What a refusal means, in one sentence.
    pub fn refusal(&self, repo: &str, answer: &Answer) -> Error {
        let page = format!("{}/{repo}", self.endpoint);
        let has_token = self.has_token();
        match (answer.status, text(&answer.from_hub, "x-error-code").unwrap_or_default()) {
            (401 | 403, "GatedRepo") if has_token => anyhow!(
                "hub:{repo} is gated and the account of this token has no access; accept its conditions at {page}, and run again once they \
                 are granted"
            ),
            (401 | 403, "GatedRepo") => anyhow!(
                "hub:{repo} is gated and no token was found; accept its conditions at {page}, then set HF_TOKEN or run `hf auth login`"
            ),
            (401, _) if has_token => {
                anyhow!("the hub does not accept the token for hub:{repo} (401); check the name, and renew the token with `hf auth login`")
            }
            (401, _) => anyhow!("hub:{repo} does not exist, or it is private; check the name, or set HF_TOKEN or run `hf auth login`"),
            (403, _) => anyhow!("the token may not read hub:{repo} (403); give it read access to this repository"),
            (404, "" | "RepoNotFound") if has_token => {
                anyhow!("hub:{repo} does not exist, or the account of this token may not see it; check the name at {page}")
            }
            (404, "" | "RepoNotFound") => {
                anyhow!("hub:{repo} does not exist, or it is private; check the name, or set HF_TOKEN or run `hf auth login`")
            }
            (404, "RevisionNotFound") => anyhow!("hub:{repo} has no such revision"),
            (404, _) => anyhow!("hub:{repo}: {} is gone from the hub", shown(&answer.url)),
            (status, _) => anyhow!("hub:{repo}: the hub answered {status} for {}", shown(&answer.url)),
        }
    }
}
