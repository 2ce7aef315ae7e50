//! Between the types of the calls and protobuf's.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use skep_types::NodeId;
use skep_types::node::{Availability, Member};
use tonic::Status;

use super::{Barrier, JoinAnswer, JoinCall, RenewAnswer, RenewCall, SeatCall, proto};
use crate::codec;
use crate::session::{FromAgent, Hello, News, ToAgent};

pub(super) fn value(value: &impl Serialize) -> Bytes {
    codec::encode(value).into()
}

pub(super) fn read_value<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Status> {
    codec::decode(bytes).map_err(|error| malformed(what, &error))
}

fn malformed(what: &str, why: &dyn std::fmt::Display) -> Status {
    Status::invalid_argument(format!("cannot read {what}: {why}"))
}

fn node_id(text: &str) -> Result<NodeId, Status> {
    text.parse().map_err(|error| malformed("a node's id", &error))
}

fn ip(text: &str) -> Result<IpAddr, Status> {
    text.parse().map_err(|error| malformed("an address", &error))
}

impl From<JoinCall> for proto::JoinRequest {
    fn from(call: JoinCall) -> Self {
        let availability = match call.availability {
            Availability::Active => proto::Availability::Active,
            Availability::Pause => proto::Availability::Pause,
            Availability::Drain => proto::Availability::Drain,
        };
        proto::JoinRequest { token: call.token, csr_pem: call.csr, availability: availability.into() }
    }
}

impl From<proto::JoinRequest> for JoinCall {
    fn from(call: proto::JoinRequest) -> Self {
        let availability = match call.availability() {
            proto::Availability::Active => Availability::Active,
            proto::Availability::Pause => Availability::Pause,
            proto::Availability::Drain => Availability::Drain,
        };
        JoinCall { token: call.token, csr: call.csr_pem, availability }
    }
}

impl From<JoinAnswer> for proto::JoinAnswer {
    fn from(answer: JoinAnswer) -> Self {
        let node = answer.node.to_string();
        proto::JoinAnswer { node, chain_pem: answer.chain, roots_pem: answer.roots }
    }
}

impl TryFrom<proto::JoinAnswer> for JoinAnswer {
    type Error = Status;
    fn try_from(answer: proto::JoinAnswer) -> Result<Self, Status> {
        let node = node_id(&answer.node)?;
        Ok(JoinAnswer { node, chain: answer.chain_pem, roots: answer.roots_pem })
    }
}

impl From<RenewCall> for proto::RenewRequest {
    fn from(call: RenewCall) -> Self {
        proto::RenewRequest { csr_pem: call.csr }
    }
}

impl From<proto::RenewRequest> for RenewCall {
    fn from(call: proto::RenewRequest) -> Self {
        RenewCall { csr: call.csr_pem }
    }
}

impl From<RenewAnswer> for proto::RenewAnswer {
    fn from(answer: RenewAnswer) -> Self {
        proto::RenewAnswer { chain_pem: answer.chain, roots_pem: answer.roots }
    }
}

impl From<proto::RenewAnswer> for RenewAnswer {
    fn from(answer: proto::RenewAnswer) -> Self {
        RenewAnswer { chain: answer.chain_pem, roots: answer.roots_pem }
    }
}

impl From<SeatCall> for proto::TakeSeatRequest {
    fn from(call: SeatCall) -> Self {
        proto::TakeSeatRequest { raft: call.raft, address: call.address }
    }
}

impl From<proto::TakeSeatRequest> for SeatCall {
    fn from(call: proto::TakeSeatRequest) -> Self {
        SeatCall { raft: call.raft, address: call.address }
    }
}

impl From<Barrier> for proto::BarrierAnswer {
    fn from(barrier: Barrier) -> Self {
        let Barrier { index, leader, reachable } = barrier;
        proto::BarrierAnswer { index, leader, reachable: reachable.into_iter().collect() }
    }
}

impl From<proto::BarrierAnswer> for Barrier {
    fn from(answer: proto::BarrierAnswer) -> Self {
        let proto::BarrierAnswer { index, leader, reachable } = answer;
        Barrier { index, leader, reachable: reachable.into_iter().collect() }
    }
}

/// The first word of a session.
pub(super) fn hello(hello: &Hello) -> proto::FromAgent {
    let said = proto::from_agent::Said::Hello(proto::Hello {
        description: value(&hello.description),
        address: hello.address.to_string(),
        data_path: hello.data_path.map(|address| address.to_string()).unwrap_or_default(),
    });
    proto::FromAgent { said: Some(said) }
}

pub(super) fn read_hello(first: proto::FromAgent) -> Result<Hello, Status> {
    let Some(proto::from_agent::Said::Hello(hello)) = first.said else {
        return Err(Status::invalid_argument("a session begins with a hello"));
    };
    let data_path = Some(hello.data_path.as_str()).filter(|text| !text.is_empty());
    Ok(Hello {
        description: read_value(&hello.description, "a node's description")?,
        address: ip(&hello.address)?,
        data_path: data_path.map(ip).transpose()?,
    })
}

pub(super) fn from_agent(said: FromAgent) -> proto::FromAgent {
    let said = match said {
        FromAgent::Reports(reports) => proto::from_agent::Said::Reports(value(&reports)),
        FromAgent::Acknowledged(number) => proto::from_agent::Said::Acknowledged(number),
        FromAgent::Usage(usage) => proto::from_agent::Said::Usage(value(&usage)),
        FromAgent::Beat => proto::from_agent::Said::Beat(proto::Beat {}),
    };
    proto::FromAgent { said: Some(said) }
}

/// `None` for what only newer programs know.
pub(super) fn read_from_agent(message: proto::FromAgent) -> Result<Option<FromAgent>, Status> {
    Ok(match message.said {
        Some(proto::from_agent::Said::Reports(reports)) => {
            Some(FromAgent::Reports(read_value(&reports, "reports")?))
        }
        Some(proto::from_agent::Said::Acknowledged(number)) => Some(FromAgent::Acknowledged(number)),
        Some(proto::from_agent::Said::Usage(usage)) => {
            Some(FromAgent::Usage(read_value(&usage, "what tasks use")?))
        }
        Some(proto::from_agent::Said::Beat(proto::Beat {})) => Some(FromAgent::Beat),
        Some(proto::from_agent::Said::Hello(_)) => {
            return Err(Status::invalid_argument("a session has one hello"));
        }
        None => None,
    })
}

pub(super) fn to_agent(told: ToAgent) -> proto::ToAgent {
    use proto::to_agent::Said;
    let said = match told {
        ToAgent::Assignment { number, assignment } => {
            Said::Assigned(proto::Assigned { number, assignment: value(&assignment) })
        }
        ToAgent::News(News::Node(node)) => Said::Node(value(&node)),
        ToAgent::News(News::Managers(managers)) => {
            let manager = |(node, member): (NodeId, Member)| proto::Manager {
                node: node.to_string(),
                raft: member.raft,
                address: member.address,
            };
            Said::Managers(proto::Managers { managers: managers.into_iter().map(manager).collect() })
        }
        ToAgent::News(News::Authority { roots, renew }) => {
            Said::Authority(proto::AuthorityNews { roots_pem: roots, renew })
        }
        ToAgent::Measure(services) => Said::Measure(value(&services)),
        ToAgent::Beat(period) => Said::BeatMs(u64::try_from(period.as_millis()).unwrap_or(u64::MAX)),
    };
    proto::ToAgent { said: Some(said) }
}

/// `None` for what only newer programs know.
pub(super) fn read_to_agent(message: proto::ToAgent) -> Result<Option<ToAgent>, Status> {
    use proto::to_agent::Said;
    let Some(said) = message.said else { return Ok(None) };
    Ok(Some(match said {
        Said::Assigned(proto::Assigned { number, assignment }) => {
            ToAgent::Assignment { number, assignment: read_value(&assignment, "an assignment")? }
        }
        Said::Node(node) => ToAgent::News(News::Node(read_value(&node, "a node")?)),
        Said::Managers(proto::Managers { managers }) => {
            let mut read = Vec::with_capacity(managers.len());
            for proto::Manager { node, raft, address } in managers {
                read.push((node_id(&node)?, Member { raft, address }));
            }
            ToAgent::News(News::Managers(read))
        }
        Said::Authority(proto::AuthorityNews { roots_pem: roots, renew }) => {
            ToAgent::News(News::Authority { roots, renew })
        }
        Said::Measure(services) => ToAgent::Measure(read_value(&services, "services to be measured")?),
        Said::BeatMs(period) => ToAgent::Beat(Duration::from_millis(period)),
    }))
}
