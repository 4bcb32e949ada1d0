//! Keys as they are written, and the vectors of the standards that they check.

use tollgate_config::Algorithm;

use super::super::jwk;
use super::super::token::Parts;
use crate::testing::tokens::{Signer, jwks};

#[test]
fn the_vectors_of_rfc_7515_and_rfc_8037() {
    const CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let vectors = [
        (
            r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#,
            Algorithm::Hs256,
            format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{CLAIMS}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
        ),
        (
            r#"{"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}"#,
            Algorithm::Rs256,
            format!("eyJhbGciOiJSUzI1NiJ9.{CLAIMS}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"),
        ),
        (
            r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
            Algorithm::Es256,
            format!("eyJhbGciOiJFUzI1NiJ9.{CLAIMS}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"),
        ),
        (
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
            Algorithm::EdDsa,
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg".to_owned(),
        ),
    ];
    for (key, algorithm, token) in &vectors {
        let keys = jwk::of_file(key.as_bytes(), None, None).expect("a key");
        assert_eq!(keys[0].algorithm, *algorithm);
        let parts = Parts::of(token.as_bytes()).expect("a token");
        assert_eq!(parts.head.algorithm, Some(*algorithm));
        assert!(
            keys[0].verifies(parts.signed, &parts.signature),
            "{algorithm:?}"
        );
        let mut wrong = parts.signature.clone();
        wrong[5] ^= 1;
        assert!(!keys[0].verifies(parts.signed, &wrong));
        assert!(!keys[0].verifies(b"other", &parts.signature));
    }
}

#[test]
fn keys_are_read_from_pem_and_jwk_and_what_is_no_key_is_told() {
    for signer in [Signer::ed25519("e"), Signer::es256("s"), Signer::rs256("r")] {
        let algorithm = Algorithm::of(signer.algorithm());
        for text in [signer.pem(), signer.jwk().to_string(), jwks(&[&signer])] {
            let keys = jwk::of_file(text.as_bytes(), None, Some("k")).expect("a key");
            assert_eq!(
                (Some(keys[0].algorithm), keys[0].id.as_deref()),
                (algorithm, Some("k"))
            );
            assert!(keys[0].verifies(b"m", &signer.signature(b"m")), "{text}");
            let wrong = jwk::of_file(text.as_bytes(), Some(Algorithm::Hs256), None);
            assert!(wrong.is_err(), "{text}");
        }
    }
    let ed = Signer::ed25519("e").jwk().to_string();
    for (text, why) in [
        ("-----BEGIN PRIVATE KEY-----\n".to_owned(), "private key"),
        ("hello".to_owned(), "BEGIN PUBLIC KEY"),
        ("{".to_owned(), "no JSON"),
        ("{\"keys\":[]}".to_owned(), "0 keys"),
        (ed.replace("Ed25519", "Ed448"), "not known here"),
        (ed.replace("EdDSA", "ES256"), "not for ES256"),
        (ed.replace("\"x\":\"", "\"x\":\"AAAA"), "no valid key"),
        (ed.replace("{", "{\"use\":\"enc\","), "not for signatures"),
        (
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.to_owned(),
            "no valid key",
        ),
        (r#"{"kty":"oct","k":"c2hvcnQ"}"#.to_owned(), "no valid key"),
    ] {
        let told = jwk::of_file(text.as_bytes(), None, None).expect_err(&text);
        assert!(told.contains(why), "{text}: {told}");
    }
}
