//! What users change of the cluster itself: settings, join tokens, the unlock key, the root.

use std::time::SystemTime;

use skep_cluster::Request;

use crate::authority::{self, Wish};
use crate::founding::join_token;
use crate::swarm::Membership;
use crate::{ClusterUpdate, Swarm, SwarmError};

impl Swarm {
    /// Changes the cluster's settings, rotates join tokens, the unlock key and the root.
    ///
    /// # Errors
    /// 503 when this node is no manager; 500 `update out of sequence`; 400 for settings that make no sense.
    pub async fn update_cluster(&self, update: ClusterUpdate) -> Result<(), SwarmError> {
        let manager = self.manager()?;
        let cluster = self.inspect().await?;
        // What follows may ask authorities outside, so it is not begun for nothing. The leader looks again.
        if cluster.meta.version != update.version {
            return Err(SwarmError::Internal("update out of sequence".to_owned()));
        }
        let Membership::Active(resident) = self.membership() else {
            return Err(SwarmError::Unavailable("this node is leaving its swarm".to_owned()));
        };
        let token = |rotate: bool| rotate.then(|| join_token(&cluster.authority.certificate)).transpose();
        let (worker_token, manager_token) =
            (token(update.rotate_worker_token)?, token(update.rotate_manager_token)?);
        let unlock_key = authority::new_unlock_key(&cluster, &update.spec, update.rotate_unlock_key)?;
        let credentials = resident.shared.credentials.clone();
        let ClusterUpdate { version, spec, signing, .. } = update;
        let decide = move || {
            let wish = Wish { spec: &spec, certificate: &signing.certificate, key: &signing.key };
            let changed = authority::change(&cluster, &wish, &credentials, SystemTime::now())?;
            Ok::<_, SwarmError>((spec, changed))
        };
        let (spec, authority) =
            tokio::task::spawn_blocking(decide).await.expect("deciding neither panics nor is aborted")?;
        let request = Request::UpdateCluster {
            version,
            spec: Box::new(spec),
            worker_token,
            manager_token,
            unlock_key,
            authority: authority.map(Box::new),
        };
        manager.request(request).await.map(|_| ())
    }
}
