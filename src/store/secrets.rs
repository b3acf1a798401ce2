//! Secrets of the installation itself, made once and kept sealed.

use secrecy::{ExposeSecret, ExposeSecretMut, SecretBox};

use super::{
    Store,
    backend::{execute, fetch_one, fetch_optional},
    error::{Result, StoreError},
    vault::{Place, VaultError},
};

/// The key of the keyed hash of gateway keys: without it, a stolen database cannot be used to
/// check guesses.
pub type Pepper = SecretBox<[u8; 32]>;

pub(super) const PEPPER: Place<'static> = Place { table: "secrets", column: "value", row: "pepper" };

impl Store {
    /// The pepper, made at the first call; the same for every replica and for ever.
    pub async fn pepper(&self) -> Result<Pepper> {
        let mut session = self.backend.read().await?;
        let stored =
            fetch_optional!(&mut session, (String,), "SELECT value FROM secrets WHERE name = $1", PEPPER.row,)?;
        drop(session);
        let envelope = match stored {
            Some((envelope,)) => envelope,
            None => self.make_pepper().await?,
        };
        let bytes = self.open_sealed(PEPPER, &envelope)?;
        let damaged = |_| StoreError::Damaged {
            table: PEPPER.table,
            row: PEPPER.row.to_owned(),
            problem: "the pepper is not 32 bytes",
        };
        let bytes: &[u8; 32] = bytes.as_slice().try_into().map_err(damaged)?;
        Ok(SecretBox::init_with_mut(|pepper: &mut [u8; 32]| {
            pepper.copy_from_slice(bytes);
        }))
    }

    /// Of several replicas that start at once, one wins, and the others use its pepper.
    async fn make_pepper(&self) -> Result<String> {
        let mut pepper: Pepper = SecretBox::new(Box::new([0; 32]));
        aws_lc_rs::rand::fill(pepper.expose_secret_mut()).map_err(|_| StoreError::Seal(VaultError::Crypto))?;
        let envelope = self.seal(PEPPER, pepper.expose_secret())?;
        let mut write = self.backend.write(&[]).await?;
        execute!(
            &mut write,
            "INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
            PEPPER.row,
            envelope,
        )?;
        let (winner,) = fetch_one!(&mut write, (String,), "SELECT value FROM secrets WHERE name = $1", PEPPER.row)?;
        write.commit().await?;
        Ok(winner)
    }
}
