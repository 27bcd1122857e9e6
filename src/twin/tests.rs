//! Scenarios: a world whose clock the test moves, asked as the SDK would ask it.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::ec2::{self, Call};
use super::ledger::ledger;
use super::protocol::{AwsError, Params};
use super::world::{MarketSource, Settings, World};

/// A world whose clock the test moves.
struct Bench {
    world: World,
    real: DateTime<Utc>,
}

impl Bench {
    fn new(settings: Settings) -> Bench {
        let real = "2026-01-01T00:00:00Z".parse().unwrap();
        Bench { world: World::open(settings, real).unwrap(), real }
    }

    fn demo() -> Bench {
        Bench::new(Settings { lag_seconds: 0.0, ..Settings::new(MarketSource::Demo) })
    }

    fn wait(&mut self, seconds: i64) {
        self.real += TimeDelta::seconds(seconds);
        self.world.catch_up(self.real);
        self.world.commit().unwrap();
    }

    fn call(&mut self, action: &str, params: &[(&str, &str)]) -> Result<String, AwsError> {
        let params = Params::from_map(params.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect());
        let answer = ec2::answer(&mut self.world, &Call { action, region: "us-east-1", params: &params });
        self.world.commit().unwrap();
        answer
    }

    fn template(&mut self) {
        self.call("CreateLaunchTemplate", &[("LaunchTemplateName", "t"), ("LaunchTemplateData.ImageId", "ami-0123456789abcdef0")]).unwrap();
    }

    fn fleet(&mut self, token: &str, count: &str, kind: &str, more: &[(&str, &str)]) -> Result<String, AwsError> {
        let mut params = BTreeMap::from([
            ("Type", "instant"),
            ("ClientToken", token),
            ("LaunchTemplateConfigs.1.LaunchTemplateSpecification.LaunchTemplateName", "t"),
            ("LaunchTemplateConfigs.1.LaunchTemplateSpecification.Version", "$Latest"),
            ("LaunchTemplateConfigs.1.Overrides.1.InstanceType", "g5.xlarge"),
            ("LaunchTemplateConfigs.1.Overrides.1.AvailabilityZone", "us-east-1a"),
            ("TargetCapacitySpecification.TotalTargetCapacity", count),
            ("TargetCapacitySpecification.DefaultTargetCapacityType", kind),
            ("TagSpecification.1.ResourceType", "instance"),
            ("TagSpecification.1.Tag.1.Key", "purser.dev/claim"),
            ("TagSpecification.1.Tag.1.Value", token),
        ]);
        params.extend(more.iter().copied());
        self.call("CreateFleet", &params.into_iter().collect::<Vec<_>>())
    }
}

fn instances(answer: &str) -> Vec<String> {
    answer.split("i-").skip(1).map(|rest| format!("i-{}", &rest[..17])).collect()
}

#[test]
fn the_same_token_gives_the_same_machines_and_another_request_with_it_is_refused() {
    let mut bench = Bench::demo();
    bench.template();
    let first = bench.fleet("claim-1", "2", "spot", &[]).unwrap();
    assert_eq!(instances(&first).len(), 2);
    bench.wait(3_000);
    assert_eq!(bench.fleet("claim-1", "2", "spot", &[]).unwrap(), first);
    assert_eq!(bench.world.fleet.instances().len(), 2);
    assert_eq!(bench.fleet("claim-1", "3", "spot", &[]).unwrap_err().code, "IdempotentParameterMismatch");
}

#[test]
fn a_refused_fleet_names_the_pool_and_the_reason_and_stays_refused_for_its_token() {
    let mut bench = Bench::demo();
    bench.template();
    bench.wait(96 * 60);
    let refused = bench.fleet("claim-1", "2", "spot", &[]).unwrap();
    assert!(refused.contains("<errorCode>InsufficientInstanceCapacity</errorCode>") && instances(&refused).is_empty(), "{refused}");
    bench.wait(80 * 60);
    assert_eq!(bench.fleet("claim-1", "2", "spot", &[]).unwrap(), refused);
    assert_eq!(instances(&bench.fleet("claim-2", "2", "spot", &[]).unwrap()).len(), 2);
}

#[test]
fn a_fleet_gives_what_it_can_unless_all_or_none_is_asked_for() {
    let mut bench = Bench::demo();
    bench.template();
    let all_or_none = [("SpotOptions.MinTargetCapacity", "10"), ("SpotOptions.SingleAvailabilityZone", "true")];
    let none = bench.fleet("claim-1", "10", "spot", &all_or_none).unwrap();
    assert!(instances(&none).is_empty() && none.contains("<errorCode>"), "{none}");
    let partial = bench.fleet("claim-2", "10", "spot", &[]).unwrap();
    assert_eq!(instances(&partial).len(), 8);
    assert!(partial.contains("<errorCode>InsufficientInstanceCapacity</errorCode>"));
}

#[test]
fn quotas_addresses_and_prices_refuse_by_their_names() {
    let quotas = BTreeMap::from([("L-3819A6DF".to_owned(), 8), ("L-DB2E81BA".to_owned(), 4)]);
    let mut bench = Bench::new(Settings { quotas, subnet_addresses: 2, lag_seconds: 0.0, ..Settings::new(MarketSource::Demo) });
    bench.template();
    let too_dear = bench.fleet("c0", "1", "spot", &[("LaunchTemplateConfigs.1.Overrides.1.MaxPrice", "0.01")]).unwrap();
    assert!(too_dear.contains("SpotMaxPriceTooLow"), "{too_dear}");
    assert!(bench.fleet("c1", "2", "on-demand", &[]).unwrap().contains("VcpuLimitExceeded"));
    let one_left = bench.fleet("c2", "2", "spot", &[]).unwrap();
    assert!(one_left.contains("InsufficientFreeAddressesInSubnet") && instances(&one_left).len() == 1, "{one_left}");
    let in_b = [("LaunchTemplateConfigs.1.Overrides.1.AvailabilityZone", "us-east-1b")];
    assert!(bench.fleet("c3", "2", "spot", &in_b).unwrap().contains("MaxSpotInstanceCountExceeded"));
}

#[test]
fn run_instances_refuses_as_a_whole_with_http_500_when_capacity_lacks() {
    let mut bench = Bench::demo();
    let ask = [("ImageId", "ami-0123456789abcdef0"), ("InstanceType", "g5.xlarge"), ("MinCount", "9"), ("MaxCount", "9"), ("Placement.AvailabilityZone", "us-east-1a"), ("InstanceMarketOptions.MarketType", "spot")];
    let refusal = bench.call("RunInstances", &ask).unwrap_err();
    assert_eq!((refusal.status, refusal.code.as_str()), (500, "InsufficientInstanceCapacity"));
    assert_eq!(bench.world.fleet.instances().len(), 0);
}

#[test]
fn a_new_machine_is_invisible_until_the_lag_has_passed() {
    let mut bench = Bench::new(Settings { lag_seconds: 3.0, ..Settings::new(MarketSource::Demo) });
    bench.template();
    let id = instances(&bench.fleet("c", "1", "spot", &[]).unwrap()).remove(0);
    assert_eq!(bench.call("DescribeInstances", &[("InstanceId.1", &id)]).unwrap_err().code, "InvalidInstanceID.NotFound");
    bench.wait(3);
    let seen = bench.call("DescribeInstances", &[("Filter.1.Name", "tag:purser.dev/claim"), ("Filter.1.Value.1", "c")]).unwrap();
    assert!(seen.contains("<name>pending</name>") && seen.contains(&id), "{seen}");
    bench.wait(60);
    assert!(bench.call("DescribeInstances", &[("InstanceId.1", &id)]).unwrap().contains("<name>running</name>"));
}

#[test]
fn described_instances_come_in_pages() {
    let mut bench = Bench::demo();
    bench.template();
    bench.fleet("c", "5", "spot", &[]).unwrap();
    let (mut seen, mut token) = (Vec::new(), None::<String>);
    loop {
        let mut params = vec![("MaxResults", "2")];
        params.extend(token.as_deref().map(|token| ("NextToken", token)));
        let answer = bench.call("DescribeInstances", &params).unwrap();
        seen.extend(answer.split("<instanceId>").skip(1).map(|rest| rest[..19].to_owned()));
        token = answer.split("<nextToken>").nth(1).and_then(|rest| rest.split('<').next()).map(str::to_owned);
        if token.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 5);
}

#[test]
fn spot_prices_include_the_one_in_force_at_the_start_and_none_of_the_future() {
    let mut bench = Bench::demo();
    bench.wait(3 * 3_600);
    let ask = [("InstanceType.1", "g5.xlarge"), ("AvailabilityZone", "us-east-1a"), ("StartTime", "2026-01-01T01:00:00Z")];
    let history = bench.call("DescribeSpotPriceHistory", &ask).unwrap();
    let prices: Vec<&str> = history.split("<spotPrice>").skip(1).map(|rest| rest.split('<').next().unwrap()).collect();
    assert_eq!(prices, ["0.3902", "0.3568"]);
    assert!(history.contains("2026-01-01T02:00:00.000Z") && history.contains("2026-01-01T00:00:00.000Z"));
}

#[test]
fn what_the_twin_does_not_know_it_says() {
    let error = Bench::demo().call("CreateVpc", &[]).unwrap_err();
    assert_eq!((error.status, error.code.as_str()), (400, "InvalidAction"));
    assert!(error.message.contains("CreateVpc"));
}

#[test]
fn a_restart_continues_with_the_same_ledger_answers_and_messages() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { lag_seconds: 0.0, state: Some(folder.path().to_owned()), ..Settings::new(MarketSource::Demo) };
    let mut bench = Bench::new(settings.clone());
    bench.template();
    let first = bench.fleet("c", "3", "spot", &[]).unwrap();
    bench.wait(2_000);
    let id = instances(&first).remove(0);
    bench.call("TerminateInstances", &[("InstanceId.1", &id)]).unwrap();
    bench.wait(1_000);
    let before = ledger(bench.world.entries(), bench.world.now());
    let messages = bench.world.queues.counts("purser-interruptions", std::time::Instant::now());
    let real = bench.real;
    drop(bench);
    let mut bench = Bench { world: World::open(settings.clone(), real).unwrap(), real };
    assert_eq!(ledger(bench.world.entries(), bench.world.now()), before);
    assert_eq!(bench.world.queues.counts("purser-interruptions", std::time::Instant::now()), messages);
    assert_eq!(bench.fleet("c", "3", "spot", &[]).unwrap(), first);
    // While it is down the market goes on: the pool is taken back after 95 minutes.
    drop(bench);
    let bench = Bench { world: World::open(settings, real + TimeDelta::hours(3)).unwrap(), real };
    assert_eq!(bench.world.fleet.live().count(), 0);
    let other = Settings { state: Some(folder.path().to_owned()), ..Settings::new(MarketSource::Seed(1)) };
    assert!(World::open(other, real).is_err());
}
