//! `POST /skep/rehearse`: what requests for networks and services would do, without doing it.

use std::collections::BTreeMap;

use bollard_stubs::models;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use skep_engine::view::NetworkView;
use skep_swarm::{Effect, Rehearsal};
use skep_types::NetworkId;
use skep_types::service::{Service, ServiceSpec};

use super::{networks, services};
use crate::context::{Call, Context};
use crate::error::ApiError;
use crate::http::{Answer, ok};
use crate::translate::network::{self, Wanted};
use crate::translate::service;
use crate::translate::service_view;
use crate::translate::spelling::Spelt;

/// What is to be played, in this order.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
#[derive(Default)]
struct Script {
    /// Ids of services.
    remove_services: Vec<String>,
    /// Bodies of `POST /networks/create`.
    create_networks: Vec<models::NetworkCreateRequest>,
    /// Bodies of `POST /services/create`, with names.
    create_services: Vec<Value>,
    /// Services and what they would be.
    update_services: Vec<Change>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Change {
    /// Its id.
    service: String,
    /// The body of `POST /services/{id}/update`.
    spec: Value,
}

/// What came of each, in the order of the script.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Played {
    removed: Vec<Outcome>,
    networks: Vec<Outcome>,
    created: Vec<Outcome>,
    updated: Vec<Outcome>,
}

/// What came of one request.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    /// Why it would be refused; empty otherwise.
    error: String,
    /// Tasks that the service has now.
    tasks: u64,
    /// Those of them that would be replaced.
    replaced: u64,
    /// Whether a job would run anew.
    runs_again: bool,
    /// Whether nothing at all would change.
    same: bool,
    /// The specification as it is and as it would be, with defaults; networks by name.
    current: Option<Spelt<models::ServiceSpec>>,
    planned: Option<Spelt<models::ServiceSpec>>,
}

impl From<Effect> for Outcome {
    fn from(Effect { tasks, replaced, runs_again }: Effect) -> Outcome {
        Outcome { tasks, replaced, runs_again, ..Outcome::default() }
    }
}

/// Networks by what they are called: those that are there, and those that were played.
struct Known {
    views: Vec<NetworkView>,
    played: BTreeMap<String, NetworkId>,
}

impl Known {
    fn find(&self, name: &str) -> Result<NetworkId, ApiError> {
        self.played.get(name).copied().map_or_else(|| services::usable(&self.views, name), Ok)
    }

    fn parse(&self, spec: &Value) -> Result<ServiceSpec, String> {
        service::parse(spec.to_string().as_bytes(), &|name| self.find(name))
            .map_err(|error| error.to_string())
    }

    /// A specification as clients see it, but with networks by name.
    fn show(&self, spec: &ServiceSpec) -> Spelt<models::ServiceSpec> {
        let mut model = service_view::spec(spec, true);
        let attachments = model.task_template.as_mut().and_then(|task| task.networks.as_mut());
        for target in attachments.into_iter().flatten().filter_map(|attachment| attachment.target.as_mut()) {
            let there = self.views.iter().find(|view| view.id == *target).map(|view| view.name.clone());
            let played = || self.played.iter().find(|(_, id)| id.to_string() == *target);
            if let Some(name) = there.or_else(|| played().map(|(name, _)| name.clone())) {
                *target = name;
            }
        }
        Spelt(model)
    }
}

/// `POST /skep/rehearse`
pub async fn answer(context: &Context, call: Call) -> Answer {
    let script: Script = call.json().await?;
    let mut known = Known { views: networks::all(context).await, played: BTreeMap::new() };
    let services: BTreeMap<String, Service> = context
        .swarm
        .services()
        .await?
        .into_iter()
        .map(|service| (service.id.to_string(), service))
        .collect();
    let play = |rehearsal: &mut Rehearsal<'_>| Played {
        removed: script
            .remove_services
            .iter()
            .map(|id| {
                let service = services.get(id).ok_or_else(|| format!("service {id} not found"))?;
                rehearsal.remove_service(service.id).map(Outcome::from).map_err(|refusal| refusal.message)
            })
            .map(told)
            .collect(),
        networks: script
            .create_networks
            .into_iter()
            .map(|request| told(create_network(rehearsal, request, &mut known)))
            .collect(),
        created: script
            .create_services
            .iter()
            .map(|spec| {
                let spec = known.parse(spec)?;
                let planned = Some(known.show(&spec));
                rehearsal.create_service(spec).map_err(|refusal| refusal.message)?;
                Ok(Outcome { planned, ..Outcome::default() })
            })
            .map(told)
            .collect(),
        updated: script
            .update_services
            .iter()
            .map(|change| told(update_service(rehearsal, change, &services, &known)))
            .collect(),
    };
    ok(&context.swarm.rehearse(play).await?)
}

fn told(outcome: Result<Outcome, String>) -> Outcome {
    outcome.unwrap_or_else(|error| Outcome { error, ..Outcome::default() })
}

fn create_network(
    rehearsal: &mut Rehearsal<'_>,
    request: models::NetworkCreateRequest,
    known: &mut Known,
) -> Result<Outcome, String> {
    let name = request.name.clone();
    let spec = match network::create(request).map_err(|error| error.to_string())? {
        Wanted::Cluster(spec, None) => spec,
        Wanted::Cluster(_, Some(_)) | Wanted::Local(_) => {
            return Err(format!("The network {name} cannot be used with services"));
        }
    };
    if known.views.iter().any(|view| view.name == name) {
        return Err(format!("network with name {name} already exists"));
    }
    let id = rehearsal.create_network(*spec).map_err(|refusal| refusal.message)?;
    known.played.extend(id.map(|id| (name, id)));
    Ok(Outcome::default())
}

fn update_service(
    rehearsal: &mut Rehearsal<'_>,
    change: &Change,
    services: &BTreeMap<String, Service>,
    known: &Known,
) -> Result<Outcome, String> {
    let id = &change.service;
    let service = services.get(id).ok_or_else(|| format!("service {id} not found"))?;
    let mut spec = known.parse(&change.spec)?;
    services::keep_auth(&mut spec, &service.spec);
    let (current, planned) = (Some(known.show(&service.spec)), Some(known.show(&spec)));
    let same = spec == service.spec;
    let effect = rehearsal.update_service(service.id, spec).map_err(|refusal| refusal.message)?;
    Ok(Outcome { same, current, planned, ..Outcome::from(effect) })
}
