//! What an ID token must be to be believed (OpenID Connect Core 3.1.3.7). The library checks the
//! signature; the claims are judged here, each by itself, so that the log can say which one is wrong.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA512, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;

use super::claims::Claims;
use super::error::TokenError;

/// The algorithms that are taken: signatures by a key of the provider's, never `none`, and never a MAC,
/// whose key could be a public one.
const TAKEN: [Algorithm; 4] = [Algorithm::RS256, Algorithm::ES256, Algorithm::PS256, Algorithm::EdDSA];
/// How far the provider's clock may be from ours, in seconds.
const SKEW: i64 = 60;
/// The longest subject that the specification allows.
const LONGEST_SUBJECT: usize = 255;

/// What the token must say.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    pub(super) nonce: &'a str,
    /// What came along with it.
    pub(super) access_token: &'a str,
    /// Unix seconds.
    pub(super) now: i64,
}

/// The keys in a key set; those of kinds that are not known are left out.
pub(super) fn keys(set: &Value) -> Vec<Jwk> {
    let keys = set["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    keys.iter().filter_map(|key| serde_json::from_value(key.clone()).ok()).collect()
}

/// The claims of a token that is believed.
pub(super) fn verify(token: &str, keys: &[Jwk], expected: &Expected<'_>) -> Result<Claims, TokenError> {
    let (algorithm, claims) = signed(token, keys)?;
    judge(&claims, algorithm, expected)?;
    Ok(claims)
}

/// The claims of a token that one of the keys has signed.
fn signed(token: &str, keys: &[Jwk]) -> Result<(Algorithm, Claims), TokenError> {
    let algorithm = algorithm_of(token)?;
    let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_aud) = (false, false);
    let fitting: Vec<&Jwk> =
        keys.iter().filter(|key| fits(key, algorithm)).filter(|key| named(key, header.kid.as_deref())).collect();
    if fitting.is_empty() {
        return Err(TokenError::UnknownKey);
    }
    let open = |key: &Jwk| decode::<Claims>(token, &DecodingKey::from_jwk(key).ok()?, &validation).ok();
    let opened = fitting.into_iter().find_map(open).ok_or(TokenError::Signature)?;
    Ok((algorithm, opened.claims))
}

/// The algorithm of the header, read by itself: one that the library does not know is no damaged token.
fn algorithm_of(token: &str) -> Result<Algorithm, TokenError> {
    let header = token.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let header: Value = header.and_then(|text| serde_json::from_slice(&text).ok()).ok_or(TokenError::Malformed)?;
    let named: Option<Algorithm> = header["alg"].as_str().and_then(|name| name.parse().ok());
    named.filter(|algorithm| TAKEN.contains(algorithm)).ok_or(TokenError::Algorithm)
}

fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let signs = matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature));
    signs && key.common.key_algorithm.is_none_or(|of_key| of_key == KeyAlgorithm::from(algorithm))
}

fn named(key: &Jwk, wanted: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| key.common.key_id.as_deref() == Some(wanted))
}

fn judge(claims: &Claims, algorithm: Algorithm, expected: &Expected<'_>) -> Result<(), TokenError> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let second = |name: &str| claims.get(name).and_then(Value::as_f64);
    let holds = |holds: bool, name| if holds { Ok(()) } else { Err(TokenError::Claim(name)) };
    #[expect(clippy::cast_precision_loss, reason = "seconds are far below 2^52")]
    let (early, late) = ((expected.now - SKEW) as f64, (expected.now + SKEW) as f64);

    holds(text("iss") == Some(expected.issuer), "iss")?;
    let audience = match claims.get("aud") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    holds(audience.contains(&expected.client_id), "aud")?;
    // For several it must say who asked for it; that somebody else did is never right.
    let party = claims.get("azp");
    holds(party.map_or(audience.len() == 1, |party| party.as_str() == Some(expected.client_id)), "azp")?;
    holds(second("exp").is_some_and(|end| end > early), "exp")?;
    holds(second("iat").is_some_and(|at| at < late), "iat")?;
    holds(!claims.contains_key("nbf") || second("nbf").is_some_and(|from| from < late), "nbf")?;
    let nonce = text("nonce").unwrap_or_default();
    holds(verify_slices_are_equal(nonce.as_bytes(), expected.nonce.as_bytes()).is_ok(), "nonce")?;
    holds(text("sub").is_some_and(|sub| !sub.is_empty() && sub.len() <= LONGEST_SUBJECT), "sub")?;
    let at_hash = claims.get("at_hash");
    holds(at_hash.is_none_or(|hash| hash.as_str() == Some(&half_hash(algorithm, expected.access_token))), "at_hash")
}

/// The left half of the hash that belongs to the algorithm.
fn half_hash(algorithm: Algorithm, text: &str) -> String {
    let hash = if algorithm == Algorithm::EdDSA { &SHA512 } else { &SHA256 };
    let hash = digest(hash, text.as_bytes());
    URL_SAFE_NO_PAD.encode(&hash.as_ref()[..hash.as_ref().len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
        RsaKeyPair,
    };
    use serde_json::json;

    const NOW: i64 = 1_800_000_000;
    const ACCESS: &str = "an-access-token";

    /// Keys of a provider, and how it signs.
    struct Signer {
        ec: EcdsaKeyPair,
        ed: Ed25519KeyPair,
        rsa: RsaKeyPair,
    }

    impl Signer {
        fn new() -> Self {
            Self {
                ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
                ed: Ed25519KeyPair::generate().unwrap(),
                rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            }
        }

        fn keys(&self) -> Vec<Jwk> {
            let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let point = self.ec.public_key().as_ref();
            let modulus = self.rsa.public_key().modulus();
            let exponent = self.rsa.public_key().exponent();
            keys(&json!({"keys": [
                {"kty": "XY", "kid": "of an unknown kind"},
                {"kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig", "alg": "ES256",
                    "x": text(&point[1..33]), "y": text(&point[33..])},
                {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": text(self.ed.public_key().as_ref())},
                {"kty": "RSA", "kid": "rsa", "use": "sig", "n": text(modulus.big_endian_without_leading_zero()),
                    "e": text(exponent.big_endian_without_leading_zero())},
                {"kty": "RSA", "kid": "enc", "use": "enc", "n": text(modulus.big_endian_without_leading_zero()),
                    "e": text(exponent.big_endian_without_leading_zero())},
            ]}))
        }

        fn token(&self, header: &Value, claims: &Value) -> String {
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let message = format!("{}.{}", part(header), part(claims));
            let random = SystemRandom::new();
            let rsa = |padding: &'static dyn aws_lc_rs::signature::RsaEncoding| {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa.sign(padding, &random, message.as_bytes(), &mut signature).unwrap();
                signature
            };
            let signature = match header["alg"].as_str() {
                Some("ES256") => self.ec.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
                Some("EdDSA") => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
                Some("RS256") => rsa(&RSA_PKCS1_SHA256),
                Some("PS256") => rsa(&RSA_PSS_SHA256),
                _ => Vec::new(),
            };
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    }

    fn claims() -> Value {
        json!({
            "iss": "https://id.example.com", "aud": "tollway", "sub": "ada", "nonce": "n-1",
            "iat": NOW - 5, "exp": NOW + 300,
        })
    }

    fn expected() -> Expected<'static> {
        Expected {
            issuer: "https://id.example.com",
            client_id: "tollway",
            nonce: "n-1",
            access_token: ACCESS,
            now: NOW,
        }
    }

    fn check(signer: &Signer, header: &Value, claims: &Value) -> Result<Claims, TokenError> {
        verify(&signer.token(header, claims), &signer.keys(), &expected())
    }

    #[test]
    fn a_right_token_is_believed_under_every_algorithm_with_and_without_a_key_id() {
        let signer = Signer::new();
        for (algorithm, kid) in [("ES256", "ec"), ("EdDSA", "ed"), ("RS256", "rsa"), ("PS256", "rsa")] {
            let mut claims = claims();
            let named: Algorithm = algorithm.parse().unwrap();
            claims["at_hash"] = json!(half_hash(named, ACCESS));
            for header in [json!({"alg": algorithm, "kid": kid}), json!({"alg": algorithm})] {
                let told = check(&signer, &header, &claims);
                assert_eq!(told.map(|claims| claims["sub"].clone()), Ok(json!("ada")), "{header}");
            }
        }
    }

    #[test]
    fn other_algorithms_and_keys_are_refused() {
        let signer = Signer::new();
        for (header, expected) in [
            (json!({"alg": "none"}), TokenError::Algorithm),
            (json!({"alg": "None"}), TokenError::Algorithm),
            (json!({"alg": "HS256", "kid": "rsa"}), TokenError::Algorithm),
            (json!({"alg": "RS512", "kid": "rsa"}), TokenError::Algorithm),
            (json!({"kid": "rsa"}), TokenError::Algorithm),
            (json!({"alg": "ES256", "kid": "gone"}), TokenError::UnknownKey),
            // The key says that it is for something else.
            (json!({"alg": "RS256", "kid": "ec"}), TokenError::UnknownKey),
            (json!({"alg": "RS256", "kid": "enc"}), TokenError::UnknownKey),
            // The key is of another kind than the algorithm.
            (json!({"alg": "ES256", "kid": "rsa"}), TokenError::Signature),
        ] {
            assert_eq!(check(&signer, &header, &claims()).unwrap_err(), expected, "{header}");
        }
        let stranger = Signer::new().token(&json!({"alg": "ES256", "kid": "ec"}), &claims());
        assert_eq!(verify(&stranger, &signer.keys(), &expected()).unwrap_err(), TokenError::Signature);
    }

    #[test]
    fn a_mac_made_with_the_public_key_is_refused() {
        let signer = Signer::new();
        let secret = signer.rsa.public_key().as_ref();
        let key = jsonwebtoken::EncodingKey::from_secret(secret);
        let header = jsonwebtoken::Header::new(Algorithm::HS256);
        let forged = jsonwebtoken::encode(&header, &claims(), &key).unwrap();
        assert_eq!(verify(&forged, &signer.keys(), &expected()).unwrap_err(), TokenError::Algorithm);
    }

    #[test]
    fn a_tampered_token_is_refused() {
        let signer = Signer::new();
        let token = signer.token(&json!({"alg": "ES256", "kid": "ec"}), &claims());
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        let mut other = claims();
        other["sub"] = json!("eve");
        parts[1] = URL_SAFE_NO_PAD.encode(other.to_string());
        assert_eq!(verify(&parts.join("."), &signer.keys(), &expected()).unwrap_err(), TokenError::Signature);
        for damaged in ["", "a", "a.b.c", "..", token.split_once('.').unwrap().0] {
            assert!(verify(damaged, &signer.keys(), &expected()).is_err(), "{damaged}");
        }
    }

    #[test]
    fn every_claim_that_is_wrong_or_missing_is_named() {
        let signer = Signer::new();
        let table = [
            ("iss", json!("https://evil.example.com"), "iss"),
            ("iss", json!("https://id.example.com/"), "iss"),
            ("iss", Value::Null, "iss"),
            ("aud", json!("another"), "aud"),
            ("aud", json!([]), "aud"),
            ("aud", Value::Null, "aud"),
            // For several, and nobody says who asked for it.
            ("aud", json!(["tollway", "another"]), "azp"),
            ("azp", json!("another"), "azp"),
            ("exp", json!(NOW - 61), "exp"),
            ("exp", json!("soon"), "exp"),
            ("exp", Value::Null, "exp"),
            ("iat", json!(NOW + 61), "iat"),
            ("iat", Value::Null, "iat"),
            ("nbf", json!(NOW + 61), "nbf"),
            ("nonce", json!("n-2"), "nonce"),
            ("nonce", Value::Null, "nonce"),
            ("sub", json!(""), "sub"),
            ("sub", json!("x".repeat(256)), "sub"),
            ("sub", Value::Null, "sub"),
            ("at_hash", json!("of-another-token"), "at_hash"),
        ];
        for (name, value, wrong) in table {
            let mut claims = claims();
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
            let told = check(&signer, &json!({"alg": "ES256", "kid": "ec"}), &claims);
            assert_eq!(told.unwrap_err(), TokenError::Claim(wrong), "{name}: {value}");
        }
    }

    #[test]
    fn what_is_unusual_and_right_is_taken() {
        let signer = Signer::new();
        for change in [
            json!({"aud": ["tollway"]}),
            json!({"aud": ["another", "tollway"], "azp": "tollway"}),
            json!({"exp": NOW - 30, "iat": NOW + 30}),
            json!({"nbf": NOW}),
        ] {
            let mut claims = claims();
            for (name, value) in change.as_object().unwrap() {
                claims[name] = value.clone();
            }
            assert!(check(&signer, &json!({"alg": "ES256", "kid": "ec"}), &claims).is_ok(), "{change}");
        }
    }
}
