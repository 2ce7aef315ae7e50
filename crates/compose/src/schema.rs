//! Which keys a stack file may have and what they hold, for Compose 3.0 to 3.13: the stock client's schemas as one table,
//! each key with the version that brought it.

/// The newest version's second number; also what a file without a version is.
pub(crate) const NEWEST: u8 = 13;

/// What a value may be.
pub(crate) enum Shape {
    /// Anything.
    Any,
    Null,
    Text,
    Integer,
    Number,
    Boolean,
    /// Text such as `1m30s`.
    Duration,
    /// Text of these.
    OneOf(&'static [&'static str]),
    /// Items of a shape; twice the same is refused.
    Set(&'static Shape),
    /// Items of a shape.
    List(&'static Shape),
    /// A mapping with keys of the user's choice, all of one shape.
    Entries(&'static Shape),
    /// A mapping of things that are named: letters, digits and `._-`.
    Named(&'static Shape),
    /// A mapping with known keys.
    Fields(Fields),
    /// One of these; no two are of one kind.
    Either(&'static [&'static Shape]),
}

/// The keys of a mapping.
pub(crate) struct Fields {
    pub known: &'static [Field],
    /// Whether other keys are passed over.
    pub is_open: bool,
    /// The version since which keys that begin with `x-` are passed over; `None` for never.
    pub extensions: Option<u8>,
    /// A key that must be there.
    pub required: Option<&'static str>,
}

/// A key of a mapping.
pub(crate) struct Field {
    pub name: &'static str,
    pub since: u8,
    pub shape: &'static Shape,
}

const fn field(name: &'static str, shape: &'static Shape) -> Field {
    Field { name, since: 0, shape }
}

const fn since(since: u8, name: &'static str, shape: &'static Shape) -> Field {
    Field { name, since, shape }
}

const fn fields(known: &'static [Field]) -> Shape {
    Shape::Fields(Fields { known, is_open: false, extensions: None, required: None })
}

const fn extensible(known: &'static [Field], since: u8) -> Shape {
    Shape::Fields(Fields { known, is_open: false, extensions: Some(since), required: None })
}

const fn open(known: &'static [Field]) -> Shape {
    Shape::Fields(Fields { known, is_open: true, extensions: None, required: None })
}

use Shape::{Any, Boolean, Duration, Either, Entries, Integer, List, Named, Null, Number, OneOf, Set, Text};

static STRINGS: Shape = Set(&Text);
static STRING_OR_LIST: Shape = Either(&[&Text, &Set(&Text)]);
static LIST_OR_MAPPING: Shape = Either(&[&Entries(&Either(&[&Text, &Number, &Null])), &Set(&Text)]);
static OPTIONS: Shape = Entries(&Either(&[&Text, &Number]));
static WORDS: Shape = Either(&[&Text, &List(&Text)]);

/// A whole file.
pub(crate) static FILE: Shape = extensible(
    &[
        field("version", &Text),
        field("services", &Named(&SERVICE)),
        field("networks", &Named(&NETWORK)),
        field("volumes", &Named(&VOLUME)),
        since(1, "secrets", &Named(&SECRET)),
        since(3, "configs", &Named(&CONFIG)),
    ],
    4,
);

static SERVICE: Shape = extensible(
    &[
        field("deploy", &DEPLOY),
        field("build", &Either(&[&Text, &open(&[])])),
        field("cap_add", &STRINGS),
        field("cap_drop", &STRINGS),
        since(9, "cgroupns_mode", &Text),
        field("cgroup_parent", &Text),
        field("command", &WORDS),
        since(3, "configs", &List(&FILE_REFERENCE)),
        field("container_name", &Text),
        since(3, "credential_spec", &CREDENTIAL_SPEC),
        field("depends_on", &STRINGS),
        field("devices", &STRINGS),
        field("dns", &STRING_OR_LIST),
        field("dns_search", &STRING_OR_LIST),
        field("domainname", &Text),
        field("entrypoint", &WORDS),
        field("env_file", &STRING_OR_LIST),
        field("environment", &LIST_OR_MAPPING),
        field("expose", &Set(&Either(&[&Text, &Number]))),
        field("external_links", &STRINGS),
        field("extra_hosts", &LIST_OR_MAPPING),
        field("healthcheck", &HEALTHCHECK),
        field("hostname", &Text),
        field("image", &Text),
        since(7, "init", &Boolean),
        field("ipc", &Text),
        since(5, "isolation", &Text),
        field("labels", &LIST_OR_MAPPING),
        field("links", &STRINGS),
        field("logging", &LOGGING),
        field("mac_address", &Text),
        field("network_mode", &Text),
        field("networks", &Either(&[&Set(&Text), &Named(&Either(&[&SERVICE_NETWORK, &Null]))])),
        since(13, "oom_score_adj", &Integer),
        field("pid", &Either(&[&Text, &Null])),
        field("ports", &Set(&Either(&[&Number, &Text, &PORT]))),
        field("privileged", &Boolean),
        field("read_only", &Boolean),
        field("restart", &Text),
        field("security_opt", &STRINGS),
        field("shm_size", &Either(&[&Number, &Text])),
        since(1, "secrets", &List(&FILE_REFERENCE)),
        field("sysctls", &LIST_OR_MAPPING),
        field("stdin_open", &Boolean),
        field("stop_grace_period", &Duration),
        field("stop_signal", &Text),
        field("tmpfs", &STRING_OR_LIST),
        field("tty", &Boolean),
        field("ulimits", &Entries(&Either(&[&Integer, &ULIMIT]))),
        field("user", &Text),
        field("userns_mode", &Text),
        field("volumes", &List(&Either(&[&Text, &MOUNT]))),
        field("working_dir", &Text),
    ],
    7,
);

static SERVICE_NETWORK: Shape = fields(&[
    field("aliases", &STRINGS),
    since(13, "driver_opts", &OPTIONS),
    field("ipv4_address", &Text),
    field("ipv6_address", &Text),
]);

static PORT: Shape = fields(&[
    since(2, "mode", &Text),
    since(2, "target", &Integer),
    since(2, "published", &Integer),
    since(2, "protocol", &Text),
]);

static ULIMIT: Shape = fields(&[field("hard", &Integer), field("soft", &Integer)]);

static MOUNT: Shape = Shape::Fields(Fields {
    known: &[
        since(2, "type", &Text),
        since(2, "source", &Text),
        since(2, "target", &Text),
        since(2, "read_only", &Boolean),
        since(2, "consistency", &Text),
        since(2, "bind", &open(&[field("propagation", &Text)])),
        since(2, "volume", &open(&[field("nocopy", &Boolean), field("subpath", &Text)])),
        since(6, "tmpfs", &open(&[field("size", &Integer)])),
    ],
    is_open: false,
    extensions: None,
    required: Some("type"),
});

static FILE_REFERENCE: Shape = Either(&[
    &Text,
    &open(&[
        field("source", &Text),
        field("target", &Text),
        field("uid", &Text),
        field("gid", &Text),
        field("mode", &Number),
    ]),
]);

static CREDENTIAL_SPEC: Shape =
    fields(&[since(8, "config", &Text), field("file", &Text), field("registry", &Text)]);

static LOGGING: Shape =
    fields(&[field("driver", &Text), field("options", &Entries(&Either(&[&Text, &Number, &Null])))]);

static HEALTHCHECK: Shape = fields(&[
    field("disable", &Boolean),
    field("interval", &Duration),
    field("retries", &Number),
    field("test", &WORDS),
    field("timeout", &Duration),
    since(4, "start_period", &Duration),
    since(12, "start_interval", &Duration),
]);

static DEPLOY: Shape = Either(&[
    &fields(&[
        field("mode", &Text),
        since(2, "endpoint_mode", &Text),
        field("replicas", &Integer),
        field("labels", &LIST_OR_MAPPING),
        since(7, "rollback_config", &UPDATE),
        field("update_config", &UPDATE),
        field("resources", &fields(&[field("limits", &LIMITS), field("reservations", &RESERVATIONS)])),
        field("restart_policy", &RESTART),
        field("placement", &PLACEMENT),
    ]),
    &Null,
]);

static UPDATE: Shape = fields(&[
    field("parallelism", &Integer),
    field("delay", &Duration),
    field("failure_action", &Text),
    field("monitor", &Duration),
    field("max_failure_ratio", &Number),
    since(4, "order", &OneOf(&["start-first", "stop-first"])),
]);

static LIMITS: Shape = fields(&[field("cpus", &Text), field("memory", &Text), since(9, "pids", &Integer)]);

static RESERVATIONS: Shape =
    fields(&[field("cpus", &Text), field("memory", &Text), since(5, "generic_resources", &List(&GENERIC))]);

static GENERIC: Shape =
    fields(&[field("discrete_resource_spec", &fields(&[field("kind", &Text), field("value", &Number)]))]);

static RESTART: Shape = fields(&[
    field("condition", &Text),
    field("delay", &Duration),
    field("max_attempts", &Integer),
    field("window", &Duration),
]);

static PLACEMENT: Shape = fields(&[
    field("constraints", &List(&Text)),
    since(3, "preferences", &List(&fields(&[field("spread", &Text)]))),
    since(8, "max_replicas_per_node", &Integer),
]);

static EXTERNAL: Shape = Either(&[&Boolean, &fields(&[field("name", &Text)])]);

static NETWORK: Shape = Either(&[
    &extensible(
        &[
            since(5, "name", &Text),
            field("driver", &Text),
            field("driver_opts", &OPTIONS),
            field(
                "ipam",
                &fields(&[
                    field("driver", &Text),
                    field("config", &List(&fields(&[field("subnet", &Text)]))),
                ]),
            ),
            field("external", &EXTERNAL),
            field("internal", &Boolean),
            since(2, "attachable", &Boolean),
            field("labels", &LIST_OR_MAPPING),
        ],
        7,
    ),
    &Null,
]);

static VOLUME: Shape = Either(&[
    &extensible(
        &[
            since(4, "name", &Text),
            field("driver", &Text),
            field("driver_opts", &OPTIONS),
            field("external", &EXTERNAL),
            field("labels", &LIST_OR_MAPPING),
            since(10, "x-cluster-spec", &Any),
        ],
        7,
    ),
    &Null,
]);

static SECRET: Shape = extensible(
    &[
        since(5, "name", &Text),
        field("file", &Text),
        field("external", &EXTERNAL),
        field("labels", &LIST_OR_MAPPING),
        since(8, "driver", &Text),
        since(8, "driver_opts", &OPTIONS),
        since(8, "template_driver", &Text),
    ],
    7,
);

static CONFIG: Shape = extensible(
    &[
        since(5, "name", &Text),
        field("file", &Text),
        field("external", &EXTERNAL),
        field("labels", &LIST_OR_MAPPING),
        since(8, "template_driver", &Text),
    ],
    7,
);
