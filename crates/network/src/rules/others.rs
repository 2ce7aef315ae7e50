//! What the rules of others keep ours from doing. They are only ever read.

use std::io;

use super::encode::{FAMILY_IPV4, FORWARD, NEW_CHAIN, SUBSYSTEM, TABLE};
use crate::netlink::{DUMP, Messages, Socket, find, fixed, text};

const GET_CHAIN: u16 = SUBSYSTEM | 4;

/// Sentences about what of others keeps published ports from being reached: our rules can drop what others accept, but
/// not accept what others drop.
pub(crate) fn obstacles(socket: &mut Socket) -> io::Result<Vec<String>> {
    let chains = dropping_chains(socket, FORWARD)?;
    Ok(chains
        .into_iter()
        .map(|chain| {
            format!(
                "chain {} of nft table {} drops forwarded packets by policy: containers and published ports are reached \
                 only as far as its rules accept them",
                chain.name, chain.table
            )
        })
        .collect())
}

/// A chain of any table that drops what no rule of its accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DroppingChain {
    table: String,
    name: String,
}

/// The base chains at `hook` for IPv4 whose policy is to drop.
fn dropping_chains(socket: &mut Socket, hook: u32) -> io::Result<Vec<DroppingChain>> {
    const ANY_FAMILY: [u8; 4] = [0; 4];
    let answers = socket.query(Messages::one(GET_CHAIN, DUMP, &ANY_FAMILY))?;
    Ok(answers
        .iter()
        .filter(|(kind, _)| *kind == NEW_CHAIN)
        .filter_map(|(_, body)| dropping_chain(body, hook))
        .collect())
}

fn dropping_chain(body: &[u8], wanted: u32) -> Option<DroppingChain> {
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const HOOK_NUMBER: u16 = 1;
    const POLICY: u16 = 5;
    const POLICY_DROP: [u8; 4] = [0; 4];
    const FAMILY_INET: u8 = 1;
    let (header, rest) = body.split_first_chunk::<4>()?;
    let at_hook = fixed(find(find(rest, HOOK)?, HOOK_NUMBER)?)? == wanted.to_be_bytes();
    let drops = fixed(find(rest, POLICY)?)? == POLICY_DROP;
    let sees_ipv4 = matches!(header[0], FAMILY_IPV4 | FAMILY_INET);
    (at_hook && drops && sees_ipv4)
        .then_some(DroppingChain { table: text(find(rest, TABLE)?), name: text(find(rest, NAME)?) })
}
