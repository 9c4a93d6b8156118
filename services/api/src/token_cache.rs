//! Tokens that were found a moment ago.
//!
//! A token is believed for a few seconds without asking the ledger, so a revocation takes as long to be felt; an expiry
//! is felt at once. Keys are hashes, so neither the time of a look-up nor a copy of the memory tells a secret.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use pgtenant_ledger::{Ledger, Token, find_token};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

/// Tokens that are remembered; when there are more, all are asked for again.
const MAX_TOKENS: usize = 4096;
/// Tokens that the ledger is asked for at the same time.
const ASKING: usize = 2;

pub(crate) struct TokenCache {
    found: Mutex<HashMap<[u8; 32], Remembered>>,
    ttl: Duration,
    /// So that a flood of wrong tokens, each of which is asked for, leaves the ledger's other connections alone.
    asking: Semaphore,
}

struct Remembered {
    token: Arc<Token>,
    asked: Instant,
}

impl TokenCache {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self { found: Mutex::default(), ttl, asking: Semaphore::new(ASKING) }
    }

    /// The token with this secret, if it is valid. Wrong ones are not remembered.
    pub(crate) async fn find(
        &self,
        ledger: &Ledger,
        secret: &SecretString,
    ) -> pgtenant_ledger::Result<Option<Arc<Token>>> {
        let hash: [u8; 32] = Sha256::digest(secret.expose_secret().as_bytes()).into();
        if let Some(token) = self.remembered(&hash) {
            return Ok(Some(token));
        }
        let _turn = self.asking.acquire().await;
        // Many requests of one client come at once; the first has asked for all of them.
        if let Some(token) = self.remembered(&hash) {
            return Ok(Some(token));
        }
        let asked = Instant::now();
        let Some(token) = find_token(&mut *ledger.acquire().await?, secret).await? else { return Ok(None) };
        let token = Arc::new(token);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() >= MAX_TOKENS {
            found.clear();
        }
        found.insert(hash, Remembered { token: Arc::clone(&token), asked });
        Ok(Some(token))
    }

    /// Forgets everything, so that a revocation through this replica is felt at once.
    pub(crate) fn clear(&self) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn remembered(&self, hash: &[u8; 32]) -> Option<Arc<Token>> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let Remembered { token, asked } = found.get(hash)?;
        let expired = token.expires_at.is_some_and(|end| end <= Utc::now());
        if asked.elapsed() >= self.ttl || expired {
            found.remove(hash);
            return None;
        }
        Some(Arc::clone(token))
    }
}
