//! `docker wait`.

use std::future::Future;

use super::record::State;
use crate::options::{WaitCondition, WaitResult};
use crate::view::Status;
use crate::{Engine, Result};

impl Engine {
    /// Registers a wait; the inner future ends when the condition holds.
    ///
    /// # Errors
    /// 404.
    pub async fn wait(
        &self,
        name: &str,
        condition: WaitCondition,
    ) -> Result<impl Future<Output = WaitResult> + Send + 'static> {
        let container = self.find(name)?;
        let mut state = container.state.subscribe();
        let ends = state.borrow_and_update().ends;
        Ok(async move {
            // The container is held, so that its state is not dropped before it is read.
            let _held = container;
            let holds = |state: &State| match condition {
                WaitCondition::NotRunning => state.gone || state.status != Status::Running,
                WaitCondition::NextExit => state.gone || state.ends > ends,
                WaitCondition::Removed => state.gone || state.status == Status::Dead,
            };
            match state.wait_for(holds).await {
                Ok(state) => {
                    // A failed removal: the client has nobody else to learn it from. Whoever started a container in
                    // vain was told already, and would print it twice.
                    let failed =
                        !state.gone && condition == WaitCondition::Removed && !state.error.is_empty();
                    let error = failed.then(|| state.error.clone());
                    WaitResult { code: state.exit_code, error }
                }
                Err(_) => WaitResult { code: 0, error: Some("the engine was shut down".to_owned()) },
            }
        })
    }
}
