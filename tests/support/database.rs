//! A look into an installation's database, through the store and its master key: the only way to
//! see what a killed process left behind without starting another that might change it.

use secrecy::{ExposeSecret as _, SecretString};
use tollway::store::vault::Keyring;
use tollway::store::{OpenOptions, Store};

use super::{MASTER_KEY, Setup, SimAccount};

impl Setup {
    /// The refresh token that is stored for an account.
    pub(crate) async fn refresh_token(&self, account: &SimAccount) -> String {
        let url = SecretString::from(format!("sqlite://{}", self.database().display()));
        let keyring = Keyring::parse(&SecretString::from(MASTER_KEY)).expect("the master key");
        let store = Store::open(OpenOptions { url, keyring }).await.expect("the database opens");
        let found = store.accounts().find(&account.email).await.expect("the account");
        let credentials = store.accounts().credentials(found.id).await.expect("a look-up").expect("credentials");
        store.close().await;
        credentials.refresh_token.expose_secret().to_owned()
    }
}
