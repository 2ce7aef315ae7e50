//! Volumes of the local driver.

use crate::options::VolumeCreate;
use crate::view::VolumeView;
use crate::{Engine, Result};

impl Engine {
    /// Makes a volume, or finds the one of that name.
    ///
    /// # Errors
    /// 400 for a name that Docker would refuse.
    pub async fn create_volume(&self, _volume: VolumeCreate) -> Result<VolumeView> {
        todo!()
    }

    /// All volumes, by name.
    pub fn volumes(&self) -> Vec<VolumeView> {
        todo!()
    }

    /// One volume.
    ///
    /// # Errors
    /// 404 `get x: no such volume`.
    pub fn inspect_volume(&self, _name: &str) -> Result<VolumeView> {
        todo!()
    }

    /// Removes a volume and its content. `force` forgives a name that is not there.
    ///
    /// # Errors
    /// 404, and 409 `remove x: volume is in use - [id]`.
    pub async fn remove_volume(&self, _name: &str, _force: bool) -> Result<()> {
        todo!()
    }
}
