//! What AWS does, as its documentation says, and where moto and the twin are known to do otherwise.

/// By call: what Purser sees when AWS answers, in an account that lends it a reservation of two g5.xlarge.
pub const AWS: &[(&str, &str)] = &[
    ("S3: a checkpoint before the bucket, before and after it is written", "false, false, true"),
    ("quote: kinds offered", "reserved, spot, on-demand"),
    ("quote: on-demand prices", "known"),
    ("quote: g5.xlarge on demand in us-east-1", "1.006 USD/h"),
    ("quote: quotas", "known"),
    ("quote: reservations", "known"),
    ("quote: free addresses bound the offers", "true"),
    ("quote: a g5.xlarge is", "4 vCPU, 16384 MiB, 1 × A10G, amd64"),
    ("launch: two spot machines", "2 machines"),
    ("launch: the same token again", "the same machines"),
    ("launch: the same token, after an upgrade changed the template", "the same machines"),
    ("launch: one machine on demand", "1 machines"),
    ("launch: a reservation's two machines, and one more", "2 machines; 0 machines, refused: NoCapacity"),
    ("list: the machines of the claim", "2 alive, as asked for: true"),
    ("list: launch times are the market's", "true"),
    ("launch template", "volumes encrypted: true, metadata tokens: required"),
    ("launch: an image that is not there", "0 machines, refused: Invalid"),
    ("launch: a zone without a subnet", "0 machines, refused: Invalid"),
    ("launch: a queue by URL", "error, retry: Never"),
    ("launch: more than the market has", "0 machines, refused: NoCapacity"),
    ("prices: a spot market since the first call", "in force at the beginning: true, in order: true, the last is the quoted price: true"),
    ("prices: a market that is not there", "error, retry: AfterBackoff"),
    ("messages: a queue that is not there", "error, retry: Never"),
    ("messages: a warning and a piece of nonsense", "interruption of i-wire at 22:01:33, other"),
    ("terminate: machines, one of them long forgotten", "done"),
    ("terminate: the same again", "done"),
    ("list: ended machines tell when they ended", "all ended, true"),
    ("list: another cluster's machines", "0"),
];

/// One endpoint's other answer to one call.
pub struct Difference {
    pub endpoint: &'static str,
    pub call: &'static str,
    pub seen: &'static str,
    #[allow(dead_code)] // Read by people.
    pub because: &'static str,
}

pub const DIFFERENCES: &[Difference] = &[
    Difference { endpoint: "moto", call: "quote: kinds offered", seen: "spot, on-demand", because: "moto has no capacity reservations" },
    Difference { endpoint: "moto", call: "launch: a reservation's two machines, and one more", seen: "none is lent", because: "moto has no capacity reservations" },
    Difference { endpoint: "moto", call: "quote: on-demand prices", seen: "not known, from the catalogue", because: "moto has no Pricing service" },
    Difference { endpoint: "moto", call: "quote: quotas", seen: "not known", because: "moto knows the quotas of VPC only" },
    Difference { endpoint: "moto", call: "quote: reservations", seen: "not known", because: "moto has no capacity reservations" },
    Difference { endpoint: "moto", call: "launch: the same token again", seen: "other machines", because: "moto ignores client tokens" },
    Difference { endpoint: "moto", call: "launch: the same token, after an upgrade changed the template", seen: "other machines", because: "moto ignores client tokens" },
    Difference { endpoint: "moto", call: "launch: more than the market has", seen: "900 machines", because: "moto never runs out" },
];
