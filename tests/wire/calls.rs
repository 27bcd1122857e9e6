//! The list of calls, in an order in which one prepares the next. Each tells in a few words what was seen; words, and not
//! identifiers or times, so that two endpoints can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use chrono::{DateTime, TimeDelta, Utc};
use purser::capacity::offer::QuotedOffer;
use purser::capacity::{CapacityKind, InstanceRequirements, Offer, Provider};
use purser::cloud::aws::Aws;
use purser::cloud::{Cloud, CloudError, CloudEventKind, LaunchAnswer, LaunchRequest, PoolConfig};
use purser::scheduling::snapshot::{CloudInstance, InstanceState};
use purser::training::JobRef;
use purser::units::MoneyPerHour;

const REGION: &str = "us-east-1";
const CLUSTER: &str = "wire-test";
/// The twin makes this queue at its start; elsewhere the test does.
const QUEUE: &str = "purser-interruptions";

struct Wire {
    aws: Aws,
    ec2: aws_sdk_ec2::Client,
    sqs: aws_sdk_sqs::Client,
    pool: PoolConfig,
    begun: DateTime<Utc>,
    /// An offer of a reservation that is lent to us, where the endpoint has one.
    reserved: Option<Offer>,
    seen: Vec<(&'static str, String)>,
}

pub async fn run() -> Vec<(&'static str, String)> {
    let mut wire = Wire::new().await;
    wire.storage().await;
    let spot = wire.quote().await;
    wire.launch(&spot).await;
    wire.reserved().await;
    wire.refusals(&spot).await;
    wire.prices(&spot).await;
    wire.messages().await;
    wire.ends().await;
    wire.seen
}

impl Wire {
    async fn new() -> Wire {
        let config = aws_config::defaults(BehaviorVersion::v2026_01_12()).region(Region::from_static(REGION)).load().await;
        let ec2 = aws_sdk_ec2::Client::new(&config);
        let subnets = ec2.describe_subnets().send().await.unwrap();
        let subnets: BTreeMap<String, String> = subnets.subnets().iter().filter_map(|subnet| Some((subnet.availability_zone()?.to_owned(), subnet.subnet_id()?.to_owned()))).collect();
        let images = ec2.describe_images().send().await.unwrap();
        let ami = images.images().iter().find_map(|image| image.root_device_name().and(image.image_id())).unwrap().to_owned();
        let requirements = InstanceRequirements { instance_types: vec!["g5.xlarge".into(), "g5.12xlarge".into(), "g4dn.xlarge".into(), "m5.xlarge".into()], ..InstanceRequirements::default() };
        let pool = PoolConfig {
            pool: "wire".into(),
            cluster_id: CLUSTER.into(),
            region: REGION.into(),
            requirements,
            subnets,
            ami,
            instance_profile: None,
            security_groups: Vec::new(),
            kms_key: None,
            volume_gib: 50,
            user_data: Some("#!/bin/sh".into()),
            interruption_queue: Some(QUEUE.into()),
            tags: BTreeMap::from([("team".into(), "wire".into())]),
        };
        assert_eq!(pool.validate(), Ok(()));
        Wire { aws: Aws::new(Arc::new(Utc::now)), ec2, sqs: aws_sdk_sqs::Client::new(&config), pool, begun: Utc::now(), reserved: None, seen: Vec::new() }
    }

    fn saw(&mut self, call: &'static str, seen: impl Into<String>) {
        self.seen.push((call, seen.into().replace(['\n', '\t'], " ")));
    }

    async fn storage(&mut self) {
        let storage = self.aws.storage(REGION).await.unwrap();
        let uri = "s3://wire-checkpoints/bert/run-1";
        let without_bucket = storage.holds(uri).await.unwrap();
        storage.ensure_bucket("wire-checkpoints").await.unwrap();
        storage.ensure_bucket("wire-checkpoints").await.unwrap();
        let empty = storage.holds(uri).await.unwrap();
        storage.put(&format!("{uri}/step-100"), b"weights".to_vec()).await.unwrap();
        let written = storage.holds(uri).await.unwrap();
        self.saw("S3: a checkpoint before the bucket, before and after it is written", format!("{without_bucket}, {empty}, {written}"));
    }

    /// Tells what was quoted, and gives the cheapest spot offer.
    async fn quote(&mut self) -> Offer {
        let quote = self.aws.quote(&self.pool).await.unwrap();
        let kinds: BTreeSet<CapacityKind> = quote.offers.iter().map(|quoted| quoted.offer.kind).collect();
        let kinds: Vec<String> = kinds.iter().map(ToString::to_string).collect();
        self.saw("quote: kinds offered", kinds.join(", "));
        self.saw("quote: on-demand prices", if quote.warnings.iter().any(|warning| warning.contains("list prices")) { "not known, from the catalogue" } else { "known" });
        let g5 = quote.offers.iter().find(|quoted| quoted.offer.instance_type == "g5.xlarge" && quoted.offer.kind == CapacityKind::OnDemand);
        self.saw("quote: g5.xlarge on demand in us-east-1", g5.map_or("not offered".into(), |quoted| quoted.offer.price.to_string()));
        self.saw("quote: quotas", if quote.warnings.iter().any(|warning| warning.contains("quotas")) { "not known" } else { "known" });
        self.saw("quote: reservations", if quote.warnings.iter().any(|warning| warning.contains("reservations")) { "not known" } else { "known" });
        self.saw("quote: free addresses bound the offers", (!quote.offers.is_empty() && quote.offers.iter().all(|quoted| quoted.available_max.is_some())).to_string());
        let machine = &g5.or(quote.offers.first()).unwrap().machine;
        self.saw("quote: a g5.xlarge is", format!("{} vCPU, {} MiB, {} × {}, {}", machine.vcpu, machine.memory_mib, machine.gpus, machine.gpu_name.as_deref().unwrap_or("no GPU"), machine.architecture));
        self.reserved = quote.offers.iter().find(|quoted| quoted.offer.kind == CapacityKind::Reserved).map(|quoted| quoted.offer.clone());
        let spot = |quoted: &&QuotedOffer| quoted.offer.kind == CapacityKind::Spot;
        quote.offers.iter().find(spot).expect("some spot offer").offer.clone()
    }

    fn request(&self, offer: &Offer, count: u32, claim: &str) -> LaunchRequest {
        let job = JobRef { namespace: "ml".into(), name: "bert".into(), uid: "uid-1".into() };
        LaunchRequest { config: self.pool.clone(), offer: offer.clone(), count, claim: claim.into(), job, attempt: 1 }
    }

    async fn launch(&mut self, spot: &Offer) {
        let request = self.request(spot, 2, "claim-spot");
        let first = self.aws.launch(&request, "token-spot").await.unwrap();
        self.saw("launch: two spot machines", told(&first));
        let again = self.aws.launch(&request, "token-spot").await.unwrap();
        let ids = |answer: &LaunchAnswer| answer.instances.iter().map(|launched| launched.id.clone()).collect::<BTreeSet<_>>();
        self.saw("launch: the same token again", if ids(&first) == ids(&again) { "the same machines" } else { "other machines" });
        let mut changed = request.clone();
        changed.config.volume_gib += 1;
        let mended = self.aws.launch(&changed, "token-spot").await.map_or_else(error_told, |answer| if ids(&first) == ids(&answer) { "the same machines".into() } else { "other machines".into() });
        self.saw("launch: the same token, after an upgrade changed the template", mended);
        let on_demand = Offer { kind: CapacityKind::OnDemand, price: MoneyPerHour::usd("1").unwrap(), ..spot.clone() };
        let answer = self.aws.launch(&self.request(&on_demand, 1, "claim-od"), "token-od").await.unwrap();
        self.saw("launch: one machine on demand", told(&answer));
        let listed = self.listed("claim-spot").await;
        let first_ids = ids(&first);
        let ours: Vec<&CloudInstance> = listed.iter().filter(|instance| first_ids.contains(&instance.id)).collect();
        let as_asked = ours.iter().all(|instance| instance.pool == "wire" && instance.instance_type == spot.instance_type && instance.zone == spot.zone && instance.state.is_alive());
        self.saw("list: the machines of the claim", format!("{} alive, as asked for: {as_asked}", ours.len()));
        let close = first.instances.iter().all(|launched| (launched.launched_at - Utc::now()).abs() < TimeDelta::minutes(5));
        self.saw("list: launch times are the market's", close.to_string());
        self.template().await;
    }

    /// A reservation of two machines gives two, and then none, rather than others at the list price.
    async fn reserved(&mut self) {
        let Some(offer) = self.reserved.clone() else {
            self.saw("launch: a reservation's two machines, and one more", "none is lent");
            return;
        };
        let two = self.aws.launch(&self.request(&offer, 2, "claim-two"), "token-two").await.map_or_else(error_told, |answer| told(&answer));
        let more = self.aws.launch(&self.request(&offer, 1, "claim-more"), "token-more").await.map_or_else(error_told, |answer| told(&answer));
        self.saw("launch: a reservation's two machines, and one more", format!("{two}; {more}"));
    }

    /// Machines of a claim, once the endpoint lists them.
    async fn listed(&self, claim: &str) -> Vec<CloudInstance> {
        for _ in 0..20 {
            let instances = self.aws.instances(REGION, CLUSTER).await.unwrap();
            let listed: Vec<CloudInstance> = instances.into_iter().filter(|instance| instance.claim.as_deref() == Some(claim)).collect();
            if !listed.is_empty() {
                return listed;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Vec::new()
    }

    /// What the launch template says, read back.
    async fn template(&mut self) {
        let versions = async {
            let templates = self.ec2.describe_launch_templates().send().await.ok()?;
            let name = templates.launch_templates().iter().filter_map(|template| template.launch_template_name()).find(|name| name.starts_with("purser-"))?.to_owned();
            self.ec2.describe_launch_template_versions().launch_template_name(name).send().await.ok()
        };
        let seen = match versions.await {
            Some(answer) => answer.launch_template_versions().first().and_then(|version| version.launch_template_data()).map_or("empty".to_owned(), |data| {
                let encrypted = data.block_device_mappings().iter().all(|mapping| mapping.ebs().and_then(|ebs| ebs.encrypted()) == Some(true)) && !data.block_device_mappings().is_empty();
                let tokens = data.metadata_options().and_then(|options| options.http_tokens()).map_or("not said", |tokens| tokens.as_str());
                format!("volumes encrypted: {encrypted}, metadata tokens: {tokens}")
            }),
            None => "cannot be read back".to_owned(),
        };
        self.saw("launch template", seen);
    }

    async fn refusals(&mut self, spot: &Offer) {
        let mut request = self.request(spot, 1, "claim-bad");
        request.config.ami = "ami-0000000000000000f".into();
        let answer = self.aws.launch(&request, "token-ami").await;
        self.saw("launch: an image that is not there", answer.map_or_else(error_told, |answer| told(&answer)));
        let mut request = self.request(spot, 1, "claim-bad");
        request.offer.zone = "us-east-1z".into();
        let answer = self.aws.launch(&request, "token-zone").await;
        self.saw("launch: a zone without a subnet", answer.map_or_else(error_told, |answer| told(&answer)));
        let mut request = self.request(spot, 1, "claim-bad");
        request.config.interruption_queue = Some("http://127.0.0.1:1/queue".into());
        let answer = self.aws.launch(&request, "token-url").await;
        self.saw("launch: a queue by URL", answer.map_or_else(error_told, |answer| told(&answer)));
        let crowd = self.aws.launch(&self.request(&Offer { kind: CapacityKind::Spot, ..spot.clone() }, 900, "claim-crowd"), "token-crowd").await;
        self.saw("launch: more than the market has", crowd.map_or_else(error_told, |answer| told(&answer)));
    }

    async fn prices(&mut self, spot: &Offer) {
        let (from, to) = (self.begun, Utc::now());
        let history = self.aws.price_history(REGION, spot, from, to).await;
        let seen = history.map_or_else(error_told, |segments| {
            let in_force = segments.first().is_some_and(|segment| segment.from <= from);
            let ordered = segments.windows(2).all(|pair| pair[0].from < pair[1].from);
            format!("in force at the beginning: {in_force}, in order: {ordered}, the last is the quoted price: {}", segments.last().is_some_and(|segment| segment.price == spot.price))
        });
        self.saw("prices: a spot market since the first call", seen);
        let unknown = Offer { provider: Provider::Aws, instance_type: "g9.none".into(), ..spot.clone() };
        let history = self.aws.price_history(REGION, &unknown, from, to).await;
        self.saw("prices: a market that is not there", history.map_or_else(error_told, |segments| format!("{} segments", segments.len())));
    }

    async fn messages(&mut self) {
        let missing = self.aws.events(REGION, "no-such-queue", 0).await;
        self.saw("messages: a queue that is not there", missing.map_or_else(error_told, |events| format!("{} events", events.len())));
        let url = self.sqs.create_queue().queue_name(QUEUE).send().await.unwrap().queue_url.unwrap();
        let warning = serde_json::json!({
            "version": "0", "id": "1", "detail-type": "EC2 Spot Instance Interruption Warning", "source": "aws.ec2", "account": "000000000000", "time": "2026-11-24T22:01:33Z",
            "region": REGION, "resources": [], "detail": {"instance-id": "i-wire", "instance-action": "terminate"},
        });
        self.sqs.send_message().queue_url(&url).message_body(warning.to_string()).send().await.unwrap();
        self.sqs.send_message().queue_url(&url).message_body("no event").send().await.unwrap();
        let mut kinds = BTreeSet::new();
        let deadline = Utc::now() + TimeDelta::seconds(20);
        while Utc::now() < deadline && !(kinds.contains("interruption of i-wire at 22:01:33") && kinds.contains("other")) {
            let events = self.aws.events(REGION, QUEUE, 1).await.unwrap();
            kinds.extend(events.iter().filter(|event| ["i-wire", ""].contains(&event.instance.as_str())).map(|event| match event.what {
                CloudEventKind::Notice(_) => format!("interruption of {} at {}", event.instance, event.at.format("%H:%M:%S")),
                _ => "other".to_owned(),
            }));
            let receipts: Vec<String> = events.into_iter().map(|event| event.receipt).collect();
            self.aws.acknowledge(REGION, QUEUE, &receipts).await.unwrap();
        }
        self.saw("messages: a warning and a piece of nonsense", kinds.into_iter().collect::<Vec<_>>().join(", "));
    }

    async fn ends(&mut self) {
        let alive: Vec<String> = self.aws.instances(REGION, CLUSTER).await.unwrap().into_iter().filter(|instance| instance.state.is_alive()).map(|instance| instance.id).collect();
        let mut ids = alive.clone();
        ids.push("i-0123456789abcdef0".into());
        let ended = self.aws.terminate(REGION, &ids).await;
        self.saw("terminate: machines, one of them long forgotten", ended.map_or_else(error_told, |()| "done".into()));
        let again = self.aws.terminate(REGION, &alive).await;
        self.saw("terminate: the same again", again.map_or_else(error_told, |()| "done".into()));
        let gone = self.gone(&alive).await;
        let recent = |at: DateTime<Utc>| (at - Utc::now()).abs() < TimeDelta::minutes(5);
        let told = gone.iter().all(|instance| instance.ended.as_ref().is_some_and(|end| !end.estimated && recent(end.at)));
        self.saw("list: ended machines tell when they ended", format!("{}, {told}", if gone.len() == alive.len() { "all ended" } else { "some are alive" }));
        let others = self.aws.instances(REGION, "another-cluster").await.unwrap();
        self.saw("list: another cluster's machines", others.len().to_string());
    }

    async fn gone(&self, ids: &[String]) -> Vec<CloudInstance> {
        let mut gone = Vec::new();
        for _ in 0..20 {
            let instances = self.aws.instances(REGION, CLUSTER).await.unwrap();
            gone = instances.into_iter().filter(|instance| ids.contains(&instance.id) && matches!(instance.state, InstanceState::ShuttingDown | InstanceState::Terminated)).collect();
            if gone.len() == ids.len() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        gone
    }
}

fn told(answer: &LaunchAnswer) -> String {
    match &answer.refusal {
        Some(refusal) => format!("{} machines, refused: {:?}", answer.instances.len(), refusal.code),
        None => format!("{} machines", answer.instances.len()),
    }
}

fn error_told(error: CloudError) -> String {
    format!("error, retry: {:?}", error.retry)
}
