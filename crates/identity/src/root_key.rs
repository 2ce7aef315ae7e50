//! Reading the key of a root that a user brings along: PKCS#8, and the older forms that openssl and cfssl write,
//! which become PKCS#8 when they are named.

use rcgen::KeyPair;
use rustls::pki_types::PrivateKeyDer;

use crate::IdentityError;
use crate::error::failed;
use crate::issuer::element;

/// `AlgorithmIdentifier` begins, in DER: `id-ecPublicKey`, with the curve to follow.
const EC_ALGORITHM: [u8; 9] = [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// `rsaEncryption`, and its NULL.
const RSA_ALGORITHM: [u8; 13] =
    [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 0x04;
/// `[0]` of an `ECPrivateKey`: the curve.
const CURVE: u8 = 0xa0;

/// The key in a PEM text.
///
/// # Errors
/// When there is none, it is encrypted, or of a kind that cannot sign here.
pub(crate) fn read(key_pem: &str) -> Result<KeyPair, IdentityError> {
    let unreadable = || IdentityError::Unreadable { what: "the cluster's root key" };
    // openssl puts the curve before the key.
    let blocks = pem::parse_many(key_pem).map_err(|_| unreadable())?;
    let block = blocks.iter().find(|block| block.tag() != "EC PARAMETERS").ok_or_else(unreadable)?;
    let pkcs8 = match block.tag() {
        "PRIVATE KEY" => block.contents().to_vec(),
        "EC PRIVATE KEY" => {
            let curve = curve(block.contents()).ok_or_else(unreadable)?;
            wrap(&[&EC_ALGORITHM, curve].concat(), block.contents())
        }
        "RSA PRIVATE KEY" => wrap(&RSA_ALGORITHM, block.contents()),
        _ => return Err(unreadable()),
    };
    let key = PrivateKeyDer::Pkcs8(pkcs8.into());
    KeyPair::try_from(&key).map_err(failed("read the cluster's root key"))
}

/// The curve that an `ECPrivateKey` (RFC 5915) names.
fn curve(key: &[u8]) -> Option<&[u8]> {
    let (_, fields, _) = element(key)?;
    let mut rest = fields;
    while !rest.is_empty() {
        let (field, content, after) = element(rest)?;
        if field.tag == CURVE {
            return Some(content);
        }
        rest = after;
    }
    None
}

/// `PrivateKeyInfo` (RFC 5208): version 0, the algorithm, the key.
fn wrap(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let fields = [&[0x02, 0x01, 0x00][..], &value(SEQUENCE, algorithm), &value(OCTETS, key)].concat();
    value(SEQUENCE, &fields)
}

/// A value in DER.
fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let header = match u8::try_from(length) {
        Ok(short) if short < 0x80 => vec![tag, short],
        _ => {
            let bytes = length.to_be_bytes();
            let digits = &bytes[length.leading_zeros() as usize / 8..];
            [&[tag, 0x80 | digits.len() as u8], digits].concat()
        }
    };
    [&header[..], content].concat()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use super::*;

    // Made with openssl, for these tests alone.
    const EC: &str = "-----BEGIN EC PARAMETERS-----\n\
BggqhkjOPQMBBw==\n\
-----END EC PARAMETERS-----\n\
-----BEGIN EC PRIVATE KEY-----\n\
MHcCAQEEIIHXMkHK6/IrCf2tqnv+Zn1oEwE5auIW/8frsmHlOI2boAoGCCqGSM49\n\
AwEHoUQDQgAEYrzsjaoROJ5jPwEgkeilSBc3g89XmwUq7DKuIqxVfW3WAoldcP1I\n\
dnc/yzA/g+sar8DGrvnsz7j++I7iOus7Mw==\n\
-----END EC PRIVATE KEY-----\n";
    const RSA: &str = "-----BEGIN RSA PRIVATE KEY-----\n\
MIIEogIBAAKCAQEAvzkxp1YECeP8qCDGS+6WRd+Nya/Ue6bPqccHp5Pydb6j5vXo\n\
zsikRl+REGy6/z9OPLWvnUub8TQGKnBBMuv3PpQ3vv0DTnkpPvU+r0rFQWTt+3NY\n\
I1KD/IV97b407VjjcW6GKSlGhOia+ElRrO0iZngqJpfz6Ht/3VnLAcgXIacyv9NP\n\
DRf2xO2NHSiKF51RwmILyUOhc7WdUAYTaWPQIz3DHJBfwhdpo+Hdqj/KhM7/YoSW\n\
UaTGCOz6ycVKFFICBybMm7370X+6d5ckexdL9Vc+cs4ti0RM/V+goqCvMLYxy9VP\n\
r65/ISqeuC9EpzddFWzPAuyC4VKYi+zdLg5AqQIDAQABAoIBAAZPUkpVJLzjpTjy\n\
MZTnGSs8/0I0L1DgDjVqGWsFTzXP2KZJ/5irhycsJ165QG+PKgCHwWpxc00m3twM\n\
OEyLES14lCvU+w9TdmyASMVIPyDN/lUtfHoC5/3KH7UGUXEHsuPxm5NKDEHduo0I\n\
6f0+AG73lgglZrbJdMyhK5lCE4hTJqmKHkFKrUVJwOjaT3eUWjMyLr/7UV0qSPtg\n\
ruo8Ya7AIb/kfRlImaeajl+IdksLsF3GviWuZ0DFZlv/il/ChtK3POP3r+npdWXV\n\
AzZ+T3HkaH4hK3uzvWy+HLzi8ZJaLI06SnnyVBT9+NNS1d/dmiE/ncRTKwYNpR+W\n\
yXzqdAECgYEA52SRdXB3BCXayFNZI9gdFEyqFFFocEcEtqfBBlac0Kops5h9lfr0\n\
VRHxCvi0Xx2CzlR59Q49QtgVr+O40vCAoBvidUoalrAEntKb8Q7Ol6ehG0n3/8W/\n\
OpnBv9y0PR0JHLL3qx3WZdXN3KFjSWd9JoN2+GX9tGPTQVSBT7GCXAECgYEA048N\n\
7PUweaRX37O7JfYgj79VtV0QnTtuayic2pMPdKca/uK72Djx6TRP9A0WBxTFCuV+\n\
XA9WDy7jrWb3NO9v3h6TvwT6gG4crb6IPU1QsoD/NzIXJpST/0wwI0rkLcbHiWgP\n\
dhZtZC+AluejXmRz0AWpYh13Qa+7/722VGOPhKkCgYBgOB2UbDPRcbxMWPxUP2W4\n\
Lzj6Qe/f4GhBW/iUHigPTPMST3LJjxVS2qcVHN5EPw1Jpy8fi9BFn31FKriMXp3d\n\
9jpw82OjDYaeVI2r67BUt8vygQuzPBOM1qsOkUQRtaU4XeNHMJ0as5FrEWEsAPC1\n\
ty0dlaut+2S5Yd5zuSiwAQKBgDR00iUhHqXqxAcpz4u4HZbHAH951fbGl7hmV44y\n\
zLBGBwGQQrd4VzNVz0VaQU38LmdnRA+bleEp5TZHw6AShpBy0Huaxmo141KJXcql\n\
cw7vwVh0SR091fyFbaIynaVkFnHRpZPIN9ORm7bPNMjg6353COrVF47n/huJdL4z\n\
+ZARAoGAPO16T/Ef/b+hA46Li7XVId9ay1/niqD9ZHhOAct/UHBBucVgb8AGEK3u\n\
IUXFbMe4AsPPP1xcevk0tbdPvmS1Kf2Uap/TcPrJCJeYmD4kL9Q6dqVlyKFnWXOO\n\
O9BmQXrpBhNR3uQMpzwXQvsTok52JcTJboKbblj4S2crlBax7N8=\n\
-----END RSA PRIVATE KEY-----\n";

    #[test]
    fn older_forms_of_keys_are_read() {
        for text in [EC, RSA] {
            let key = read(text).unwrap();
            // What is kept from then on is the form of today.
            let kept = key.serialize_pem();
            assert!(kept.starts_with("-----BEGIN PRIVATE KEY-----"));
            assert_eq!(read(&kept).unwrap().public_key_raw(), key.public_key_raw());
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let cut = EC.replace("-----END", "x");
        let renamed = RSA.replace("RSA PRIVATE", "EC PRIVATE");
        let locked = EC.replace("EC PRIVATE", "ENCRYPTED PRIVATE");
        for text in ["", "garbage", &cut, &renamed, &locked] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
