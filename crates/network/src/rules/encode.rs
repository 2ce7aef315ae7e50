//! nf_tables over netlink: tables, chains, sets and the handful of expressions that our rules are made of.

use std::io;

use crate::netlink::{ACK, APPEND, CREATE, DUMP, Messages, Socket, find, fixed, text};

pub(crate) const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
pub(crate) const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const DELETE_CHAIN: u16 = SUBSYSTEM | 5;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const DELETE_RULE: u16 = SUBSYSTEM | 8;
const NEW_SET: u16 = SUBSYSTEM | 9;
const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
const DELETE_ELEMENT: u16 = SUBSYSTEM | 14;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const NEW_GENERATION: u16 = SUBSYSTEM | 15;
const GET_GENERATION: u16 = SUBSYSTEM | 16;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

pub(crate) const FAMILY_IPV4: u8 = 2;
/// Of IPv6 alone.
pub(crate) const FAMILY_IPV6: u8 = 10;
/// Tables whose chains see what passes one interface, whatever its protocol.
pub(crate) const FAMILY_INTERFACE: u8 = 5;
const HEADER: [u8; 4] = [FAMILY_IPV4, 0, 0, 0];
/// Names the subsystem that a batch is for, in network byte order.
const BATCH_HEADER: [u8; 4] = [0, 0, 0, 10];

/// The first attribute of all objects that live in a table.
pub(crate) const TABLE: u16 = 1;
const LIST_ELEMENT: u16 = 1;
/// Elements in one message, some 50 bytes each: an attribute's length is 16 bits, and an error comes with the message
/// that it is about, which must fit a receive buffer.
const ELEMENTS_PER_MESSAGE: usize = 400;
/// The same of a map with values as long as they may be.
const LONG_ELEMENTS_PER_MESSAGE: usize = 200;

/// nft's numbers for the types of sets, by which it shows them. The kernel does not look at them.
pub(crate) mod shown_as {
    /// A number in the machine's byte order.
    pub(crate) const INTEGER: u32 = 4;
    pub(crate) const IPV4_ADDRESS: u32 = 7;
    pub(crate) const IPV6_ADDRESS: u32 = 8;
    pub(crate) const PROTOCOL: u32 = 12;
    pub(crate) const PORT: u32 = 13;
    /// A number in the machine's byte order, in hexadecimal.
    pub(crate) const MARK: u32 = 19;
    pub(crate) const INTERFACE: u32 = 41;
    /// A concatenation has six bits for each part.
    pub(crate) const fn concat(first: u32, second: u32) -> u32 {
        first << 6 | second
    }
}

/// What nft keeps beside a set for itself, here the key's byte order: type 0, length 4, value 1. Without it nft shows
/// the names of interfaces as empty.
const SHOWN_IN_HOST_ORDER: [u8; 6] = {
    let [a, b, c, d] = 1u32.to_ne_bytes();
    [0, 4, a, b, c, d]
};

const SET_ANONYMOUS: u32 = 0x1;
const SET_CONSTANT: u32 = 0x2;
const SET_MAP: u32 = 0x8;
const DATA_IS_VERDICT: u32 = 0xffff_ff00;

/// Where in the stack a chain is called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook {
    /// `filter` or `nat`.
    pub(crate) kind: &'static str,
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

pub(crate) const PREROUTING: u32 = 0;
pub(crate) const INPUT: u32 = 1;
pub(crate) const FORWARD: u32 = 2;
pub(crate) const OUTPUT: u32 = 3;
pub(crate) const POSTROUTING: u32 = 4;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict<'a> {
    Accept,
    Drop,
    /// Go on in that chain and do not come back.
    Goto(&'a str),
    /// Go on in that chain and come back.
    Jump(&'a str),
}

/// What a set maps its keys to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SetData {
    /// Nothing: it only knows its members.
    None,
    Verdict,
    /// Bytes of the given length, shown as the given type.
    Value {
        shown_as: u32,
        len: u32,
    },
}

/// A set that is about to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Set<'a> {
    pub(crate) name: &'a str,
    pub(crate) key_shown_as: u32,
    pub(crate) key_len: u32,
    pub(crate) data: SetData,
}

/// Registers of 32 bits. The four from 8 on overlap the first of 128 bits, and so forth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Register(u32);

impl Register {
    /// The `place`th register of 32 bits; values longer than that go on into the next ones.
    pub(crate) const fn at(place: u32) -> Register {
        Register(8 + place)
    }
}

const VERDICT_REGISTER: u32 = 0;

/// One transaction under construction: all of it happens, or none.
#[derive(Debug)]
pub(crate) struct Batch {
    family: u8,
    table: String,
    messages: Messages,
    next_set_id: u32,
}

impl Batch {
    pub(crate) fn new(table: &str) -> Batch {
        let messages = Messages::one(BATCH_BEGIN, 0, &BATCH_HEADER);
        Batch { family: FAMILY_IPV4, table: table.to_owned(), messages, next_set_id: 1 }
    }

    /// What follows is about the table of the same name in another family.
    pub(crate) fn turn_to(&mut self, family: u8) {
        self.family = family;
    }

    /// One that the kernel refuses with `ERESTART` if anybody has changed any table of the namespace since it was of
    /// that generation.
    pub(crate) fn since(generation: u32, table: &str) -> Batch {
        const GENERATION: u16 = 1;
        let mut batch = Batch::new(table);
        batch.messages.network(GENERATION, generation);
        batch
    }

    /// Closes the transaction. The last message of all asks for the acknowledgement of the whole.
    pub(crate) fn finish(mut self) -> Messages {
        // Making sure that the table exists changes nothing and cannot fail, wherever it stands.
        self.begin(NEW_TABLE, ACK | CREATE);
        self.messages.begin(BATCH_END, 0, &BATCH_HEADER);
        self.messages
    }

    /// [`Batch::finish`] for one whose last change may be the removal of the table.
    pub(crate) fn finish_without_table(mut self) -> Messages {
        self.messages.acknowledge_last();
        self.messages.begin(BATCH_END, 0, &BATCH_HEADER);
        self.messages
    }

    pub(crate) fn new_table(&mut self) {
        self.begin(NEW_TABLE, CREATE);
    }

    pub(crate) fn delete_table(&mut self) {
        self.begin(DELETE_TABLE, 0);
    }

    /// Makes a chain unless it exists; with a hook, one that packets enter by themselves and leave accepted.
    pub(crate) fn new_chain(&mut self, name: &str, hook: Option<Hook>) {
        const NAME: u16 = 3;
        const HOOK: u16 = 4;
        const KIND: u16 = 7;
        const HOOK_NUMBER: u16 = 1;
        const HOOK_PRIORITY: u16 = 2;
        self.begin(NEW_CHAIN, CREATE);
        self.messages.text(NAME, name);
        if let Some(hook) = hook {
            self.messages
                .nested(HOOK, |inner| {
                    inner
                        .network(HOOK_NUMBER, hook.number)
                        .network(HOOK_PRIORITY, hook.priority.cast_unsigned());
                })
                .text(KIND, hook.kind);
        }
    }

    /// Makes a chain that sees every packet as it leaves by `device`, when all else is decided. It goes with the device.
    pub(crate) fn new_egress_chain(&mut self, name: &str, device: &str) {
        const NAME: u16 = 3;
        const HOOK: u16 = 4;
        const KIND: u16 = 7;
        const HOOK_NUMBER: u16 = 1;
        const HOOK_PRIORITY: u16 = 2;
        const HOOK_DEVICE: u16 = 3;
        const EGRESS: u32 = 1;
        self.begin(NEW_CHAIN, CREATE);
        self.messages.text(NAME, name);
        self.messages
            .nested(HOOK, |inner| {
                inner.network(HOOK_NUMBER, EGRESS).network(HOOK_PRIORITY, 0).text(HOOK_DEVICE, device);
            })
            .text(KIND, "filter");
    }

    /// Deletes a chain with its rules. It fails while something leads there.
    pub(crate) fn delete_chain(&mut self, name: &str) {
        const NAME: u16 = 3;
        self.begin(DELETE_CHAIN, 0);
        self.messages.text(NAME, name);
    }

    /// Deletes all rules of a chain.
    pub(crate) fn flush_chain(&mut self, chain: &str) {
        const CHAIN: u16 = 2;
        self.begin(DELETE_RULE, 0);
        self.messages.text(CHAIN, chain);
    }

    /// Appends a rule to a chain.
    pub(crate) fn rule(&mut self, chain: &str, fill: impl FnOnce(&mut Rule<'_>)) {
        const CHAIN: u16 = 2;
        const EXPRESSIONS: u16 = 4;
        self.begin(NEW_RULE, CREATE | APPEND);
        self.messages.text(CHAIN, chain).nested(EXPRESSIONS, |messages| fill(&mut Rule { messages }));
    }

    /// Makes a set unless it exists.
    pub(crate) fn new_set(&mut self, set: &Set<'_>) {
        self.set(set, 0, None);
    }

    /// Makes a map that belongs to the next rule that looks into it, and goes with that rule.
    pub(crate) fn rules_own_map(
        &mut self,
        key_shown_as: u32,
        key_len: u32,
        data: SetData,
        elements: &[(Vec<u8>, Vec<u8>)],
    ) -> OwnMap {
        let set = Set { name: OwnMap::NAME, key_shown_as, key_len, data };
        let id = self.set(&set, SET_ANONYMOUS | SET_CONSTANT, Some(elements.len()));
        self.values(OwnMap::NAME, Some(id), elements);
        OwnMap { id }
    }

    /// Maps keys to values. It fails when one is mapped to another value.
    pub(crate) fn add_values<K: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, map: &str, elements: &[(K, V)]) {
        self.values(map, None, elements);
    }

    fn values<K: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, map: &str, id: Option<u32>, elements: &[(K, V)]) {
        let is_long = elements.first().is_some_and(|(_, value)| value.as_ref().len() > 8);
        let at_once = if is_long { LONG_ELEMENTS_PER_MESSAGE } else { ELEMENTS_PER_MESSAGE };
        for chunk in elements.chunks(at_once) {
            self.elements(NEW_ELEMENT, map, id, |list| {
                for (key, value) in chunk {
                    list.nested(LIST_ELEMENT, |element| {
                        key_of(element, key.as_ref());
                        element.nested(ELEMENT_DATA, |data| {
                            data.attribute(DATA_VALUE, value.as_ref());
                        });
                    });
                }
            });
        }
    }

    /// Adds a member to a set that maps to nothing.
    pub(crate) fn add_member(&mut self, set: &str, key: &[u8]) {
        self.elements(NEW_ELEMENT, set, None, |list| {
            list.nested(LIST_ELEMENT, |element| key_of(element, key));
        });
    }

    /// Takes many keys out of a set or a map. It fails when one is not there.
    pub(crate) fn delete_members<'k, K: AsRef<[u8]> + 'k>(
        &mut self,
        set: &str,
        keys: impl Iterator<Item = &'k K>,
    ) {
        let keys: Vec<&K> = keys.collect();
        for chunk in keys.chunks(ELEMENTS_PER_MESSAGE) {
            self.elements(DELETE_ELEMENT, set, None, |list| {
                for key in chunk {
                    list.nested(LIST_ELEMENT, |element| key_of(element, key.as_ref()));
                }
            });
        }
    }

    /// Maps a key to a verdict.
    pub(crate) fn add_verdict(&mut self, map: &str, key: &[u8], verdict: Verdict<'_>) {
        self.elements(NEW_ELEMENT, map, None, |list| {
            list.nested(LIST_ELEMENT, |element| {
                key_of(element, key);
                element.nested(ELEMENT_DATA, |data| verdict_of(data, verdict));
            });
        });
    }

    /// Takes a key out of a set. It fails when the key is not there.
    pub(crate) fn delete_element(&mut self, set: &str, key: &[u8]) {
        self.elements(DELETE_ELEMENT, set, None, |list| {
            list.nested(LIST_ELEMENT, |element| key_of(element, key));
        });
    }

    fn begin(&mut self, kind: u16, flags: u16) {
        self.messages.begin(kind, flags, &[self.family, 0, 0, 0]);
        self.messages.text(TABLE, &self.table);
    }

    fn set(&mut self, set: &Set<'_>, flags: u32, size: Option<usize>) -> u32 {
        const NAME: u16 = 2;
        const FLAGS: u16 = 3;
        const KEY_TYPE: u16 = 4;
        const KEY_LEN: u16 = 5;
        const DATA_TYPE: u16 = 6;
        const DATA_LEN: u16 = 7;
        const DESCRIPTION: u16 = 9;
        const DESCRIPTION_SIZE: u16 = 1;
        const ID: u16 = 10;
        const USER_DATA: u16 = 13;
        let id = self.next_set_id;
        self.next_set_id += 1;
        self.begin(NEW_SET, CREATE);
        let is_map = if matches!(set.data, SetData::None) { 0 } else { SET_MAP };
        self.messages
            .text(NAME, set.name)
            .network(FLAGS, flags | is_map)
            .network(KEY_TYPE, set.key_shown_as)
            .network(KEY_LEN, set.key_len)
            .network(ID, id);
        if matches!(set.key_shown_as, shown_as::INTEGER | shown_as::INTERFACE) {
            self.messages.attribute(USER_DATA, &SHOWN_IN_HOST_ORDER);
        }
        match set.data {
            SetData::None => {}
            SetData::Verdict => {
                self.messages.network(DATA_TYPE, DATA_IS_VERDICT).network(DATA_LEN, 0);
            }
            SetData::Value { shown_as, len } => {
                self.messages.network(DATA_TYPE, shown_as).network(DATA_LEN, len);
            }
        }
        if let Some(size) = size {
            let size = u32::try_from(size).expect("a service has fewer than 2^32 backends");
            self.messages.nested(DESCRIPTION, |inner| {
                inner.network(DESCRIPTION_SIZE, size);
            });
        }
        id
    }

    fn elements(&mut self, kind: u16, set: &str, id: Option<u32>, fill: impl FnOnce(&mut Messages)) {
        const SET: u16 = 2;
        const ELEMENTS: u16 = 3;
        const SET_ID: u16 = 4;
        let flags = if kind == NEW_ELEMENT { CREATE } else { 0 };
        self.begin(kind, flags);
        self.messages.text(SET, set);
        if let Some(id) = id {
            self.messages.network(SET_ID, id);
        }
        self.messages.nested(ELEMENTS, fill);
    }
}

/// The generation of the namespace's rules: one more after each transaction.
pub(crate) fn generation(socket: &mut Socket) -> io::Result<u32> {
    const ID: u16 = 1;
    let answers = socket.query(Messages::one(GET_GENERATION, ACK, &HEADER))?;
    let answer = answers.iter().find(|(kind, _)| *kind == NEW_GENERATION);
    let id = answer.and_then(|(_, body)| find(body.get(HEADER.len()..)?, ID)).and_then(fixed);
    id.map(u32::from_be_bytes)
        .ok_or_else(|| io::Error::other("the kernel does not tell the rules' generation"))
}

/// The generation after that one.
pub(crate) fn next_generation(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

/// The namespace's tables: family and name.
pub(crate) fn tables(socket: &mut Socket) -> io::Result<Vec<(u8, String)>> {
    const NAME: u16 = 1;
    const EVERY_FAMILY: [u8; 4] = [0; 4];
    let answers = socket.query(Messages::one(GET_TABLE, DUMP, &EVERY_FAMILY))?;
    let table = |body: &[u8]| {
        let (header, rest) = body.split_at_checked(EVERY_FAMILY.len())?;
        Some((header[0], text(find(rest, NAME)?)))
    };
    Ok(answers.iter().filter(|(kind, _)| *kind == NEW_TABLE).filter_map(|(_, body)| table(body)).collect())
}

/// A map made by [`Batch::rules_own_map`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnMap {
    id: u32,
}

impl OwnMap {
    /// The kernel puts a number in the place of `%d`.
    const NAME: &'static str = "__map%d";
}

const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

fn key_of(element: &mut Messages, key: &[u8]) {
    element.nested(ELEMENT_KEY, |data| {
        data.attribute(DATA_VALUE, key);
    });
}

fn verdict_of(data: &mut Messages, verdict: Verdict<'_>) {
    const CODE: u16 = 1;
    const CHAIN: u16 = 2;
    data.nested(DATA_VERDICT, |inner| {
        match verdict {
            Verdict::Drop => inner.network(CODE, 0),
            Verdict::Accept => inner.network(CODE, 1),
            Verdict::Jump(chain) => inner.network(CODE, (-3i32).cast_unsigned()).text(CHAIN, chain),
            Verdict::Goto(chain) => inner.network(CODE, (-4i32).cast_unsigned()).text(CHAIN, chain),
        };
    });
}

/// What can be asked, or told, about a packet without looking into it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Meta {
    /// A number in the machine's byte order.
    Priority = 2,
    /// A number that the packet carries while it is in its network namespace.
    Mark = 3,
    /// Index of the interface it came in by; loopback's is 1.
    InIndex = 4,
    /// Names are 16 bytes, filled up with zeros.
    InName = 6,
    OutName = 7,
    Protocol = 16,
}

/// What can be asked about a packet's connection; a `u32` of flags in the machine's byte order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tracked {
    /// [`NEW`], [`ESTABLISHED`], [`RELATED`], [`INVALID`].
    State = 0,
    /// One byte: 0 from whoever began the connection, 1 to it.
    Direction = 1,
    /// [`DESTINATION_REWRITTEN`].
    Status = 2,
    /// A number that the connection carries.
    Mark = 3,
}

pub(crate) const INVALID: u32 = 1;
pub(crate) const ESTABLISHED: u32 = 2;
pub(crate) const RELATED: u32 = 4;
pub(crate) const NEW: u32 = 8;
pub(crate) const DESTINATION_REWRITTEN: u32 = 32;

/// A rule's expressions, evaluated in turn until one does not match.
#[derive(Debug)]
pub(crate) struct Rule<'a> {
    messages: &'a mut Messages,
}

impl Rule<'_> {
    pub(crate) fn meta(&mut self, key: Meta, into: Register) -> &mut Self {
        self.expression("meta", |data| {
            data.network(1, into.0).network(2, key as u32);
        })
    }

    pub(crate) fn set_meta(&mut self, key: Meta, from: Register) -> &mut Self {
        self.expression("meta", |data| {
            data.network(2, key as u32).network(3, from.0);
        })
    }

    pub(crate) fn tracked(&mut self, key: Tracked, into: Register) -> &mut Self {
        self.expression("ct", |data| {
            data.network(1, into.0).network(2, key as u32);
        })
    }

    /// Marks the packet.
    pub(crate) fn mark(&mut self, from: Register) -> &mut Self {
        self.expression("meta", |data| {
            data.network(3, from.0).network(2, Meta::Mark as u32);
        })
    }

    /// Marks the connection.
    pub(crate) fn mark_connection(&mut self, from: Register) -> &mut Self {
        self.expression("ct", |data| {
            data.network(4, from.0).network(2, Tracked::Mark as u32);
        })
    }

    /// Has packets of this direction be of connections of their own, apart from such with the same addresses and ports
    /// and another number, of which the first two bytes of the register count. Answers need not know the number.
    pub(crate) fn tell_apart_by(&mut self, from: Register) -> &mut Self {
        const ZONE: u32 = 17;
        const FROM_THE_BEGINNER: u8 = 0;
        self.expression("ct", |data| {
            data.network(4, from.0).network(2, ZONE).attribute(3, &[FROM_THE_BEGINNER]);
        })
    }

    /// Loads a part of the Ethernet header.
    pub(crate) fn ethernet_header(&mut self, offset: u32, len: u32, into: Register) -> &mut Self {
        self.payload(0, offset, len, into)
    }

    /// Writes four bytes into the Ethernet header.
    pub(crate) fn write_ethernet_header(&mut self, from: Register, offset: u32) -> &mut Self {
        self.expression("payload", |data| {
            data.network(5, from.0).network(2, 0).network(3, offset).network(4, 4);
        })
    }

    /// Loads a part of the header of IPv4, or of IPv6 in a table of that.
    pub(crate) fn ip_header(&mut self, offset: u32, len: u32, into: Register) -> &mut Self {
        self.payload(1, offset, len, into)
    }

    /// Loads the destination port of TCP or UDP.
    pub(crate) fn destination_port(&mut self, into: Register) -> &mut Self {
        self.payload(2, 2, 2, into)
    }

    fn payload(&mut self, base: u32, offset: u32, len: u32, into: Register) -> &mut Self {
        self.expression("payload", |data| {
            data.network(1, into.0).network(2, base).network(3, offset).network(4, len);
        })
    }

    /// Loads what kind of address the destination is to this host.
    pub(crate) fn destination_kind(&mut self, into: Register) -> &mut Self {
        const RESULT_ADDRESS_TYPE: u32 = 3;
        const OF_DESTINATION: u32 = 2;
        self.expression("fib", |data| {
            data.network(1, into.0).network(2, RESULT_ADDRESS_TYPE).network(3, OF_DESTINATION);
        })
    }

    pub(crate) fn is(&mut self, register: Register, value: &[u8]) -> &mut Self {
        self.compare(register, 0, value)
    }

    pub(crate) fn is_not(&mut self, register: Register, value: &[u8]) -> &mut Self {
        self.compare(register, 1, value)
    }

    fn compare(&mut self, register: Register, operator: u32, value: &[u8]) -> &mut Self {
        self.expression("cmp", |data| {
            data.network(1, register.0).network(2, operator).nested(3, |inner| {
                inner.attribute(DATA_VALUE, value);
            });
        })
    }

    /// Copies 32 bits.
    pub(crate) fn copy(&mut self, from: Register, into: Register) -> &mut Self {
        self.masked(from, &[0xff; 4], into)
    }

    /// Keeps the bits of `mask`, at most 16 bytes.
    pub(crate) fn mask(&mut self, register: Register, mask: &[u8]) -> &mut Self {
        self.masked(register, mask, register)
    }

    fn masked(&mut self, from: Register, mask: &[u8], into: Register) -> &mut Self {
        const NOTHING: [u8; 16] = [0; 16];
        let len = u32::try_from(mask.len()).expect("a mask is as long as an address");
        self.expression("bitwise", |data| {
            data.network(1, from.0)
                .network(2, into.0)
                .network(3, len)
                .nested(4, |inner| {
                    inner.attribute(DATA_VALUE, mask);
                })
                .nested(5, |inner| {
                    inner.attribute(DATA_VALUE, &NOTHING[..mask.len()]);
                });
        })
    }

    pub(crate) fn in_set(&mut self, register: Register, set: &str) -> &mut Self {
        self.expression("lookup", |data| {
            data.text(1, set).network(2, register.0);
        })
    }

    pub(crate) fn not_in_set(&mut self, register: Register, set: &str) -> &mut Self {
        const INVERTED: u32 = 1;
        self.expression("lookup", |data| {
            data.text(1, set).network(2, register.0).network(5, INVERTED);
        })
    }

    /// Does what the map says; goes on when it says nothing.
    pub(crate) fn verdict_by(&mut self, register: Register, map: &str) -> &mut Self {
        self.expression("lookup", |data| {
            data.text(1, map).network(2, register.0).network(3, VERDICT_REGISTER);
        })
    }

    pub(crate) fn look_up(&mut self, register: Register, map: OwnMap, into: Register) -> &mut Self {
        self.expression("lookup", |data| {
            data.text(1, OwnMap::NAME).network(2, register.0).network(3, into.0).network(4, map.id);
        })
    }

    /// Goes on with what a map has for the key, or not at all.
    pub(crate) fn look_up_in(&mut self, register: Register, map: &str, into: Register) -> &mut Self {
        self.expression("lookup", |data| {
            data.text(1, map).network(2, register.0).network(3, into.0);
        })
    }

    /// Counts 0, 1, ... `modulus - 1`, 0, ... from one packet to the next.
    pub(crate) fn next_in_turn(&mut self, modulus: u32, into: Register) -> &mut Self {
        const INCREMENTAL: u32 = 0;
        self.number(modulus, INCREMENTAL, into)
    }

    /// Draws one of 0, 1, ... `modulus - 1`.
    pub(crate) fn random(&mut self, modulus: u32, into: Register) -> &mut Self {
        const RANDOM: u32 = 1;
        self.number(modulus, RANDOM, into)
    }

    fn number(&mut self, modulus: u32, kind: u32, into: Register) -> &mut Self {
        self.expression("numgen", |data| {
            data.network(1, into.0).network(2, modulus).network(3, kind);
        })
    }

    pub(crate) fn load(&mut self, value: &[u8], into: Register) -> &mut Self {
        self.expression("immediate", |data| {
            data.network(1, into.0).nested(2, |inner| {
                inner.attribute(DATA_VALUE, value);
            });
        })
    }

    pub(crate) fn verdict(&mut self, verdict: Verdict<'_>) -> &mut Self {
        self.expression("immediate", |data| {
            data.network(1, VERDICT_REGISTER).nested(2, |inner| verdict_of(inner, verdict));
        })
    }

    /// Rewrites the connection's destination; an address of IPv6 takes four registers.
    pub(crate) fn rewrite_destination(&mut self, family: u8, address: Register, port: Register) -> &mut Self {
        self.rewrite(family, address, Some(port))
    }

    /// Rewrites the connection's destination but for its port, of any protocol.
    pub(crate) fn rewrite_destination_address(&mut self, family: u8, address: Register) -> &mut Self {
        self.rewrite(family, address, None)
    }

    fn rewrite(&mut self, family: u8, address: Register, port: Option<Register>) -> &mut Self {
        const DESTINATION: u32 = 1;
        self.expression("nat", |data| {
            data.network(1, DESTINATION)
                .network(2, u32::from(family))
                .network(3, address.0)
                .network(4, address.0);
            if let Some(port) = port {
                data.network(5, port.0).network(6, port.0);
            }
        })
    }

    /// Drops the packet and resets its TCP connection.
    pub(crate) fn reset(&mut self) -> &mut Self {
        const TCP_RESET: u32 = 1;
        self.reject(TCP_RESET, 0)
    }

    /// Drops the packet and tells its sender that nobody has the port.
    pub(crate) fn port_unreachable(&mut self) -> &mut Self {
        const ICMP_UNREACHABLE: u32 = 0;
        const PORT: u8 = 3;
        self.reject(ICMP_UNREACHABLE, PORT)
    }

    /// [`Rule::port_unreachable`] of IPv6.
    pub(crate) fn port_unreachable6(&mut self) -> &mut Self {
        const ICMP_UNREACHABLE: u32 = 0;
        const PORT: u8 = 4;
        self.reject(ICMP_UNREACHABLE, PORT)
    }

    fn reject(&mut self, kind: u32, code: u8) -> &mut Self {
        self.expression("reject", |data| {
            data.network(1, kind).attribute(2, &[code]);
        })
    }

    /// Rewrites the connection's source to the address of the interface it leaves by.
    pub(crate) fn masquerade(&mut self) -> &mut Self {
        self.expression("masq", |_| {})
    }

    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Messages)) -> &mut Self {
        const NAME: u16 = 1;
        const DATA: u16 = 2;
        self.messages.nested(LIST_ELEMENT, |element| {
            element.text(NAME, name).nested(DATA, fill);
        });
        self
    }
}
