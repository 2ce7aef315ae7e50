//! What `docker swarm ca` and `docker swarm update` ask of the authority: as SwarmKit's validateCAConfig.

use std::time::{Duration, SystemTime};

use skep_identity::{
    Credentials, ExternalCa, RootCa, SignRequest, Trust, UNLOCK_KEY_BYTES, UnlockKey, normalize, root_expiry,
};
use skep_types::swarm::{Authority, ClusterObject, ClusterSpec, Rotation, Secret};

use super::signer::urls;
use crate::SwarmError;
use crate::error::chain;
use crate::founding::random;

/// SwarmKit's `minRootExpiration`: a root has to last a year.
const MIN_ROOT_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a user wants of the authority.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    /// The cluster's new settings.
    pub(crate) spec: &'a ClusterSpec,
    /// The root that the user brings along, PEM; empty for none.
    pub(crate) certificate: &'a str,
    /// Its key, PEM; empty where authorities outside sign.
    pub(crate) key: &'a str,
}

/// What a wish comes to.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// All stays.
    Keep,
    /// This, at once.
    Put(Authority),
    /// A new root of the cluster's own takes the place of the present one.
    Generate,
    /// This root takes the place of the present one.
    Rotate { certificate: String, key: Option<String> },
}

fn refuse<T>(message: impl Into<String>) -> Result<T, SwarmError> {
    Err(SwarmError::InvalidParameter(message.into()))
}

fn failed(error: &dyn std::error::Error) -> SwarmError {
    SwarmError::Internal(chain(error))
}

/// Decides, by asking `reaches` whether one of an authority's addresses outside answers on a root.
fn decide(
    cluster: &ClusterObject,
    wish: &Wish<'_>,
    now: SystemTime,
    reaches: &dyn Fn(&str, Vec<String>) -> bool,
) -> Result<Decision, SwarmError> {
    let old = &cluster.authority;
    if !wish.key.is_empty() && wish.certificate.is_empty() {
        return refuse("if a signing CA key is provided, the signing CA cert must also be provided");
    }
    let wanted = match wish.certificate {
        "" => None,
        text => match normalize(text) {
            Ok(text) => Some(text),
            Err(_) => return refuse("could not parse the desired CA certificate"),
        },
    };
    let present = normalize(&old.certificate).map_err(|error| failed(&error))?;
    let future = ClusterObject { spec: wish.spec.clone(), ..cluster.clone() };
    let need = |root: &str, which: &str| match reaches(root, urls(&future, root)) {
        true => Ok(()),
        false => refuse(format!(
            "there must be at least one valid, reachable external CA corresponding to the {which} CA certificate"
        )),
    };
    let brings_key_of_present = wanted.as_ref() == Some(&present) && !wish.key.is_empty();
    if old.key.is_none() && !brings_key_of_present {
        need(&present, "current")?;
    }
    let Some(wanted) = wanted else {
        if wish.spec.force_rotate != cluster.spec.force_rotate {
            return Ok(Decision::Generate);
        }
        if let Some(rotation) = old.rotation.as_ref().filter(|rotation| rotation.key.is_none()) {
            need(&rotation.certificate, "next")?;
        }
        return Ok(Decision::Keep);
    };
    let key = (!wish.key.is_empty()).then(|| wish.key.to_owned());
    let parsed = key.as_ref().map(|key| RootCa::from_pem(wanted.clone(), key));
    if let Some(Err(error)) = parsed {
        return refuse(chain(&error));
    }
    if wanted.matches("-----BEGIN").count() != 1 {
        return refuse("the desired CA certificate cannot contain multiple certificates");
    }
    match root_expiry(&wanted) {
        Err(error) => return refuse(chain(&error)),
        Ok(expiry) if expiry < now + MIN_ROOT_LIFE => return refuse("CA certificate expires too soon"),
        Ok(_) => {}
    }
    if key.is_none() {
        need(&wanted, "desired")?;
    }
    let secret = key.clone().map(Secret);
    if wanted == present {
        // Whoever stays with the root ends its rotation.
        return Ok(Decision::Put(Authority { key: secret, rotation: None, ..old.clone() }));
    }
    if secret.is_some() && secret == old.key {
        return refuse("Cannot update to a cert with an identical key");
    }
    match &old.rotation {
        Some(rotation) if rotation.certificate == wanted => {
            let rotation = Some(Rotation { key: secret, ..rotation.clone() });
            Ok(Decision::Put(Authority { rotation, ..old.clone() }))
        }
        _ => Ok(Decision::Rotate { certificate: wanted, key }),
    }
}

/// The authority that a wish comes to; `None` when it stays as it is. `credentials` are this node's, to show them
/// to authorities outside. May block for seconds where there are some: not to be called on an async thread.
///
/// # Errors
/// 400 in SwarmKit's words for a wish that makes no sense; 500 when the new root cannot be made or cross-signed.
pub(crate) fn change(
    cluster: &ClusterObject,
    wish: &Wish<'_>,
    credentials: &Credentials,
    now: SystemTime,
) -> Result<Option<Authority>, SwarmError> {
    let outside = |root: &str, urls: Vec<String>| {
        Trust::parse(root).and_then(|trust| ExternalCa::new(urls, &trust, &credentials.node()))
    };
    let reaches = |root: &str, urls| outside(root, urls).is_ok_and(|outside| outside.is_reachable());
    let old = &cluster.authority;
    let rotate = |certificate: String, key: Option<String>| {
        let new = key.as_ref().map(|key| RootCa::from_pem(certificate.clone(), key)).transpose();
        let new = new.map_err(|error| failed(&error))?;
        let ask = |new: &RootCa| -> Result<String, SwarmError> {
            let urls = urls(&ClusterObject { spec: wish.spec.clone(), ..cluster.clone() }, &old.certificate);
            let request = SignRequest::cross_sign(new).map_err(|error| failed(&error))?;
            let outside = outside(&old.certificate, urls).map_err(|error| failed(&error))?;
            let signed = outside.sign(&request).map_err(|error| failed(&error))?;
            let follow = new.check_succession(&old.certificate, &signed, now);
            follow.map_err(|error| failed(&error)).map(|()| signed)
        };
        let cross_signed = match (&old.key, &new) {
            (Some(own), new) => {
                let own = RootCa::from_pem(old.certificate.clone(), &own.0);
                let signed = own.and_then(|own| match new {
                    Some(new) => own.cross_sign(new, now),
                    None => own.cross_sign_certificate(&certificate),
                });
                signed.map_err(|error| failed(&error))?
            }
            (None, Some(new)) => ask(new)?,
            (None, None) => {
                return refuse("rotating from one external CA to a different external CA is not supported");
            }
        };
        let cross_signed = normalize(&cross_signed).map_err(|error| failed(&error))?;
        let rotation = Some(Rotation { certificate, key: key.map(Secret), cross_signed });
        Ok(Some(Authority { rotation, ..old.clone() }))
    };
    match decide(cluster, wish, now, &reaches)? {
        Decision::Keep => Ok(None),
        Decision::Put(authority) => Ok(Some(authority)),
        Decision::Generate => {
            let new = RootCa::generate(now).map_err(|error| failed(&error))?;
            rotate(new.certificate_pem().to_owned(), Some(new.key_pem()))
        }
        Decision::Rotate { certificate, key } => rotate(certificate, key),
    }
}

/// The key that is to unlock managers from now on; `None` keeps what is. There is a new one when locking begins
/// and when the user asks.
///
/// # Errors
/// 500 when the system has no randomness.
pub(crate) fn new_unlock_key(
    cluster: &ClusterObject,
    spec: &ClusterSpec,
    rotate: bool,
) -> Result<Option<Secret>, SwarmError> {
    if !spec.autolock || (cluster.unlock_key.is_some() && !rotate) {
        return Ok(None);
    }
    Ok(Some(Secret(UnlockKey::new(random::<UNLOCK_KEY_BYTES>()?).text())))
}

#[cfg(test)]
mod tests;
