//! Who signs nodes' certificates: the cluster's own root, the one that is taking its place, or an authority
//! outside.

use std::time::{Duration, Instant, SystemTime};

use skep_identity::{Credentials, ExternalCa, Identity, RootCa, SignRequest, Trust, normalize};
use skep_types::NodeId;
use skep_types::node::NodeRole;
use skep_types::swarm::ClusterObject;

use super::{certified_role, roots};
use crate::SwarmError;
use crate::error::chain as told;

/// A certificate that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certified {
    /// The certificate, then what lies between it and the roots, PEM.
    pub(crate) chain: String,
    /// The roots that the cluster trusts now, PEM.
    pub(crate) roots: String,
}

/// The authority of a moment. Cheap to make: one for each certificate.
#[derive(Debug)]
pub(crate) struct Signer {
    by: By,
    roots: String,
    cluster: String,
    life: Duration,
}

#[derive(Debug)]
enum By {
    Root(Box<RootCa>),
    /// The authority outside, and what it does not send itself: its root certified by the old one.
    Outside(ExternalCa, String),
}

fn failed(error: &dyn std::error::Error) -> SwarmError {
    SwarmError::Internal(told(error))
}

impl Signer {
    /// Whoever signs for this cluster now. As SwarmKit, authorities outside go first where there are some for the
    /// wanted root; `credentials` are this node's, to show them.
    ///
    /// # Errors
    /// 500 when the authority's certificates cannot be read, or nobody can sign.
    pub(crate) fn of(cluster: &ClusterObject, credentials: &Credentials) -> Result<Signer, SwarmError> {
        let authority = &cluster.authority;
        let (certificate, key, between) = match &authority.rotation {
            None => (&authority.certificate, &authority.key, ""),
            Some(next) => (&next.certificate, &next.key, next.cross_signed.as_str()),
        };
        let urls = urls(cluster, certificate);
        let roots = roots(authority).map_err(|error| failed(&error))?;
        let by = if !urls.is_empty() {
            let trust = Trust::parse(certificate).map_err(|error| failed(&error))?;
            let outside =
                ExternalCa::new(urls, &trust, &credentials.node()).map_err(|error| failed(&error))?;
            By::Outside(outside, between.to_owned())
        } else if let Some(key) = key {
            let root = RootCa::from_pem(certificate.clone(), &key.0).and_then(|root| match between {
                "" => Ok(root),
                between => root.with_cross_signed(between),
            });
            By::Root(Box::new(root.map_err(|error| failed(&error))?))
        } else {
            return Err(SwarmError::Internal("no valid signer found".to_owned()));
        };
        Ok(Signer { by, roots, cluster: cluster.id.to_string(), life: cluster.spec.cert_expiry })
    }

    /// Signs a request for `node` in `role`. What comes back is verified before anybody gets it.
    ///
    /// # Errors
    /// 400 for a request that is none or is not signed by its own key; 500 when the authority outside does not
    /// sign, or not for this node.
    pub(crate) async fn sign(
        self,
        csr: &str,
        node: NodeId,
        role: NodeRole,
        now: SystemTime,
    ) -> Result<Certified, SwarmError> {
        let (node, role) = (node.to_string(), certified_role(role));
        let began = Instant::now();
        let chain = match self.by {
            By::Root(root) => root
                .sign(csr, &node, role, &self.cluster, now, self.life)
                .map_err(|error| SwarmError::InvalidParameter(told(&error)))?,
            By::Outside(outside, between) => {
                let request = SignRequest::node(csr, &node, role, &self.cluster);
                let signed = tokio::task::spawn_blocking(move || outside.sign(&request)).await;
                let signed = signed.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
                normalize(&(signed + "\n" + &between)).map_err(|error| failed(&error))?
            }
        };
        let trust = Trust::parse(&self.roots).map_err(|error| failed(&error))?;
        // An authority outside may let certificates begin when it signs them, which is later than `now`.
        let given = trust.verify_own(&chain, now + began.elapsed()).map_err(|error| failed(&error))?;
        let wanted = Identity { node, role, cluster: self.cluster };
        if given != wanted {
            let message = "the external CA signed a certificate for other names than it was asked for";
            return Err(SwarmError::Internal(message.to_owned()));
        }
        Ok(Certified { chain, roots: self.roots })
    }
}

/// Where the authorities outside are asked that stand on this root. Those for which the user named no root stand
/// on the cluster's.
pub(super) fn urls(cluster: &ClusterObject, root: &str) -> Vec<String> {
    let wanted = normalize(root).ok();
    let of =
        |named: &Option<String>| normalize(named.as_deref().unwrap_or(&cluster.authority.certificate)).ok();
    let outside = cluster.spec.external_authorities.iter();
    outside.filter(|authority| of(&authority.root) == wanted).map(|authority| authority.url.clone()).collect()
}

#[cfg(test)]
mod tests {
    use skep_identity::{NodeKey, Role};

    use super::super::tests::{authority, cluster, credentials};
    use super::*;

    fn csr() -> String {
        NodeKey::generate().and_then(|key| key.csr()).expect("a request")
    }

    #[tokio::test]
    async fn the_cluster_decides_the_names_and_tells_the_roots() {
        let now = SystemTime::now();
        let root = RootCa::generate(now).expect("a root");
        let cluster = cluster(authority(&root));
        let credentials = credentials(&root, &cluster);
        let signer = Signer::of(&cluster, &credentials).expect("a signer");
        let given = signer.sign(&csr(), NodeId(7), NodeRole::Worker, now).await.expect("signed");
        assert_eq!(given.roots, cluster.authority.certificate);
        let trust = Trust::parse(&given.roots).expect("roots");
        let identity = trust.verify_own(&given.chain, now).expect("it holds");
        let (node, cluster_id) = (NodeId(7).to_string(), cluster.id.to_string());
        assert_eq!(identity, Identity { node, role: Role::Worker, cluster: cluster_id });

        let signer = Signer::of(&cluster, &credentials).expect("a signer");
        let refused = signer.sign("garbage", NodeId(7), NodeRole::Worker, now).await;
        let told = "the certificate request cannot be read".to_owned();
        assert_eq!(refused, Err(SwarmError::InvalidParameter(told)));
    }

    #[test]
    fn nobody_signs_without_a_key_or_an_address() {
        let root = RootCa::generate(SystemTime::now()).expect("a root");
        let mut cluster = cluster(authority(&root));
        let credentials = credentials(&root, &cluster);
        cluster.authority.key = None;
        let error = Signer::of(&cluster, &credentials).expect_err("no key");
        assert_eq!(error.to_string(), "no valid signer found");
    }
}
