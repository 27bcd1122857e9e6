//! Asking for machines: `CreateFleet` of type `instant`, all of a gang or none where AWS can do that.
//!
//! The client token is the claim's UID: the same request with the same token gets the same fleet again, so that after a
//! crash or a timeout repeating is the way to find out. A refusal is an answer and is told at once: the SDK would otherwise
//! retry the HTTP 500 that carries `InsufficientInstanceCapacity`.

use std::error::Error;
use std::fmt::Debug;
use std::time::Duration;

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::create_fleet::{CreateFleetError, CreateFleetOutput};
use aws_sdk_ec2::types::{
    CreateFleetError as NotLaunched, DefaultTargetCapacityType, FleetLaunchTemplateConfigRequest, FleetLaunchTemplateOverridesRequest, FleetLaunchTemplateSpecificationRequest, FleetType,
    InstanceType as Ec2Type, OnDemandOptionsRequest, ResourceType, SpotAllocationStrategy, SpotInstanceInterruptionBehavior, SpotOptionsRequest, Tag, TagSpecification, TargetCapacitySpecificationRequest,
};
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction, RetryClassifierPriority};

use super::failure::{failed, message_of};
use super::region::AwsRegion;
use crate::capacity::{CapacityKind, Refusal, RefusalCode};
use crate::cloud::{CloudError, LaunchAnswer, LaunchRequest, LaunchedInstance, Retry};

pub(super) const CLUSTER_TAG: &str = "purser.dev/cluster";
pub(super) const POOL_TAG: &str = "purser.dev/pool";
pub(super) const CLAIM_TAG: &str = "purser.dev/claim";
const JOB_TAG: &str = "purser.dev/job";
const JOB_UID_TAG: &str = "purser.dev/job-uid";
const ATTEMPT_TAG: &str = "purser.dev/attempt";

/// EC2 lists new machines a little after it gave them. An exact launch time is not worth more waiting than this…
const TIMED_AFTER: [Duration; 2] = [Duration::ZERO, Duration::from_millis(250)];
/// …but machines that an earlier answer named are.
const LISTED_AFTER: [Duration; 4] = [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
const TEMPLATE_GONE: [&str; 2] = ["InvalidLaunchTemplateName.NotFoundException", "InvalidLaunchTemplateId.NotFound"];
const TOKEN_USED: &str = "IdempotentParameterMismatch";

/// Why no machine came: an answer, or no answer.
#[derive(Debug)]
pub(super) enum LaunchFailure {
    Refused { code: RefusalCode, message: String },
    Failed(CloudError),
}

impl LaunchFailure {
    pub fn refused(code: RefusalCode, message: impl Into<String>) -> LaunchFailure {
        LaunchFailure::Refused { code, message: message.into() }
    }

    pub fn of<E, R>(doing: String, error: SdkError<E, R>) -> LaunchFailure
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
        R: Debug + Send + Sync + 'static,
    {
        match error.code().and_then(refusal_code) {
            Some(code) => LaunchFailure::Refused { code, message: message_of(&error) },
            None => LaunchFailure::Failed(failed(doing, error)),
        }
    }
}

impl AwsRegion {
    pub(super) async fn launch(&self, request: &LaunchRequest, client_token: &str) -> Result<LaunchAnswer, CloudError> {
        let asked = self.ask(request, client_token).await;
        self.forget_what_is_left();
        match asked {
            Ok(answer) => Ok(answer),
            Err(LaunchFailure::Refused { code, message }) => Ok(LaunchAnswer { instances: Vec::new(), refusal: Some(Refusal { code, message, at: self.market_now() }) }),
            Err(LaunchFailure::Failed(error)) => Err(error),
        }
    }

    async fn ask(&self, request: &LaunchRequest, client_token: &str) -> Result<LaunchAnswer, LaunchFailure> {
        let Some(subnet) = request.config.subnets.get(&request.offer.zone) else {
            return Err(LaunchFailure::refused(RefusalCode::Invalid, format!("pool {} has no subnet in {}", request.config.pool, request.offer.zone)));
        };
        let template = self.ensure_template(request).await?;
        let answer = match self.create_fleet(request, client_token, &template, subnet).await {
            Err(error) if error.code().is_some_and(|code| TEMPLATE_GONE.contains(&code)) => {
                // Somebody cleaned up; nothing was launched, and the token is still unused.
                self.known.templates.forget();
                let template = self.ensure_template(request).await?;
                self.create_fleet(request, client_token, &template, subnet).await
            }
            answer => answer,
        };
        if let Err(error) = &answer
            && error.code() == Some(TOKEN_USED)
        {
            return self.earlier_machines(request, message_of(error)).await;
        }
        let doing = || format!("ask for {} × {} in {}", request.count, request.offer, self.name);
        let answer = answer.map_err(|error| LaunchFailure::of(doing(), error))?;
        self.read(request, &answer, doing).await
    }

    async fn create_fleet(&self, request: &LaunchRequest, client_token: &str, template: &str, subnet: &str) -> Result<CreateFleetOutput, SdkError<CreateFleetError>> {
        let count = i32::try_from(request.count).unwrap_or(i32::MAX);
        let market = match request.offer.kind {
            CapacityKind::Spot => DefaultTargetCapacityType::Spot,
            CapacityKind::Reserved | CapacityKind::OnDemand => DefaultTargetCapacityType::OnDemand,
        };
        let template = FleetLaunchTemplateSpecificationRequest::builder().launch_template_name(template).version("1").build();
        let place = FleetLaunchTemplateOverridesRequest::builder().instance_type(Ec2Type::from(request.offer.instance_type.as_str())).subnet_id(subnet).availability_zone(&request.offer.zone).build();
        let fleet = self.ec2.create_fleet().r#type(FleetType::Instant).client_token(client_token);
        let fleet = match market {
            DefaultTargetCapacityType::Spot => fleet.spot_options(all_or_nothing_spot(count)),
            _ => fleet.on_demand_options(OnDemandOptionsRequest::builder().single_instance_type(true).single_availability_zone(true).min_target_capacity(count).build()),
        };
        fleet
            .launch_template_configs(FleetLaunchTemplateConfigRequest::builder().launch_template_specification(template).overrides(place).build())
            .target_capacity_specification(TargetCapacitySpecificationRequest::builder().total_target_capacity(count).default_target_capacity_type(market).build())
            .tag_specifications(TagSpecification::builder().resource_type(ResourceType::Instance).set_tags(Some(instance_tags(request))).build())
            .customize()
            .config_override(aws_sdk_ec2::Config::builder().retry_classifier(RefusalsAreAnswers))
            .send()
            .await
    }

    async fn read(&self, request: &LaunchRequest, answer: &CreateFleetOutput, doing: impl Fn() -> String) -> Result<LaunchAnswer, LaunchFailure> {
        let ids: Vec<String> = answer.instances().iter().flat_map(|launched| launched.instance_ids()).cloned().collect();
        let refusal = refusal_of(request.count, ids.len(), answer.errors()).map(|(code, message)| Refusal { code, message, at: self.market_now() });
        if ids.is_empty() && refusal.is_none() {
            // Neither machines nor a reason: not an answer. The same token will tell.
            let message = "EC2 answered with neither machines nor errors".to_owned();
            return Err(LaunchFailure::Failed(CloudError { doing: doing(), message, retry: Retry::Same, source: None }));
        }
        let times = self.launch_times(&ids).await;
        let now = self.market_now();
        let instances = ids.into_iter().map(|id| LaunchedInstance { launched_at: times.get(&id).copied().unwrap_or(now), id }).collect();
        Ok(LaunchAnswer { instances, refusal })
    }

    /// The token was used for this claim by other bytes (an older Purser's): whatever machines carry the claim's tag are the
    /// answer that was lost. What EC2 lists too late becomes an orphan of the claim, and is ended as such.
    async fn earlier_machines(&self, request: &LaunchRequest, message: String) -> Result<LaunchAnswer, LaunchFailure> {
        let mut instances = Vec::new();
        for pause in LISTED_AFTER {
            tokio::time::sleep(pause).await;
            let listed = self.instances(&request.config.cluster_id).await.map_err(LaunchFailure::Failed)?;
            let of_claim = listed.into_iter().filter(|instance| instance.claim.as_ref() == Some(&request.claim));
            instances = of_claim.map(|instance| LaunchedInstance { id: instance.id, launched_at: instance.launched_at }).collect();
            if !instances.is_empty() {
                break;
            }
        }
        let code = if instances.is_empty() { RefusalCode::NoCapacity } else { RefusalCode::Partial };
        let refusal = (instances.len() < request.count as usize).then(|| Refusal { code, message, at: self.market_now() });
        Ok(LaunchAnswer { instances, refusal })
    }

    /// EC2's launch times, as far as it lists the machines already; a launch is not undone for want of a time.
    async fn launch_times(&self, ids: &[String]) -> std::collections::HashMap<String, chrono::DateTime<chrono::Utc>> {
        let mut times = std::collections::HashMap::new();
        if ids.is_empty() {
            return times;
        }
        for pause in TIMED_AFTER {
            tokio::time::sleep(pause).await;
            match self.described(ids).await {
                Ok(described) => times.extend(described.iter().filter_map(|instance| Some((instance.instance_id()?.to_owned(), super::region::time_of(instance.launch_time())?)))),
                Err(error) => tracing::debug!(%error, "machines just launched are not listed yet"),
            }
            if ids.iter().all(|id| times.contains_key(id)) {
                break;
            }
        }
        times
    }
}

fn all_or_nothing_spot(count: i32) -> SpotOptionsRequest {
    SpotOptionsRequest::builder()
        // With one type in one zone there is nothing to choose; said because it is AWS's advice, and emulators ask for one.
        .allocation_strategy(SpotAllocationStrategy::PriceCapacityOptimized)
        .single_instance_type(true)
        .single_availability_zone(true)
        .min_target_capacity(count)
        .instance_interruption_behavior(SpotInstanceInterruptionBehavior::Terminate)
        .build()
}

/// The tags from which a lost claim is rebuilt.
fn instance_tags(request: &LaunchRequest) -> Vec<Tag> {
    let own = [
        tag(CLUSTER_TAG, &request.config.cluster_id),
        tag(POOL_TAG, &request.config.pool),
        tag(CLAIM_TAG, &request.claim),
        tag(JOB_TAG, &request.job.to_string()),
        tag(JOB_UID_TAG, &request.job.uid),
        tag(ATTEMPT_TAG, &request.attempt.to_string()),
        tag("Name", &request.claim),
    ];
    // A tag may be named once; the pool's own Name gives way.
    request.config.tags.iter().filter(|(key, _)| *key != "Name").map(|(key, value)| tag(key, value)).chain(own).collect()
}

pub(super) fn tag(key: &str, value: &str) -> Tag {
    // EC2 takes 256 characters in a value; a namespace and a name together may be longer.
    Tag::builder().key(key).value(value.chars().take(256).collect::<String>()).build()
}

/// What the answer says about machines that did not come.
fn refusal_of(asked: u32, given: usize, errors: &[NotLaunched]) -> Option<(RefusalCode, String)> {
    let given = u32::try_from(given).unwrap_or(u32::MAX);
    if given >= asked {
        return None;
    }
    let reasons: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.error_code().unwrap_or("no code"), error.error_message().unwrap_or("no message"))).collect();
    let reasons = reasons.join("; ");
    if given > 0 {
        return Some((RefusalCode::Partial, format!("{given} of {asked} machines were given; {reasons}")));
    }
    let code = errors.first()?.error_code().unwrap_or_default();
    // Whatever else EC2 names here, it launched nothing: another offer may do better.
    Some((refusal_code(code).unwrap_or(RefusalCode::NoCapacity), reasons))
}

/// The refusal that an error code means; nothing for codes that leave open whether machines were launched, or that the same
/// request may overcome (throttling, wrong credentials).
fn refusal_code(code: &str) -> Option<RefusalCode> {
    match code {
        "InsufficientInstanceCapacity" | "InsufficientCapacity" | "InsufficientHostCapacity" | "InsufficientReservedInstanceCapacity" | "ReservationCapacityExceeded" | "UnfulfillableCapacity" => {
            Some(RefusalCode::NoCapacity)
        }
        // The type is not offered in this zone (CreateFleet and RunInstances say it differently), or not with this volume type.
        "Unsupported" | "InvalidFleetConfiguration" | "VolumeTypeNotAvailableInZone" => Some(RefusalCode::NoCapacity),
        "VcpuLimitExceeded" | "InstanceLimitExceeded" | "MaxSpotInstanceCountExceeded" | "MaxSpotFleetRequestCountExceeded" | "VolumeLimitExceeded" | "FleetLimitExceeded" => Some(RefusalCode::Quota),
        "InsufficientFreeAddressesInSubnet" => Some(RefusalCode::NoAddresses),
        "SpotMaxPriceTooLow" => Some(RefusalCode::PriceTooHigh),
        "UnauthorizedOperation" | "AccessDenied" | "UnsupportedOperation" | "OptInRequired" | "PendingVerification" | "Blocked" | "AuthFailure.ServiceLinkedRoleCreationNotPermitted" => {
            Some(RefusalCode::Invalid)
        }
        // About the caller, not the request; once it is mended the same request goes through.
        "InvalidClientTokenId" => None,
        _ if code.starts_with("Invalid") || code.starts_with("Missing") || code.starts_with("UnknownParameter") => Some(RefusalCode::Invalid),
        _ => None,
    }
}

/// Stops the SDK's retries where EC2 has answered: the scheduler has other offers to try meanwhile.
#[derive(Debug)]
struct RefusalsAreAnswers;

impl ClassifyRetry for RefusalsAreAnswers {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error = context.output_or_error().and_then(Result::err).and_then(|error| error.as_operation_error());
        let code = error.and_then(|error| error.downcast_ref::<CreateFleetError>()).and_then(CreateFleetError::code);
        match code.and_then(refusal_code) {
            Some(_) => RetryAction::RetryForbidden,
            None => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "refusals are answers"
    }

    fn priority(&self) -> RetryClassifierPriority {
        RetryClassifierPriority::run_after(RetryClassifierPriority::transient_error_classifier())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::capacity::{InstanceRequirements, Offer, Provider};
    use crate::cloud::PoolConfig;
    use crate::training::JobRef;
    use crate::units::MoneyPerHour;

    pub fn request(kind: CapacityKind) -> LaunchRequest {
        let config = PoolConfig {
            pool: "gpu".into(),
            cluster_id: "cluster-1".into(),
            region: "us-east-1".into(),
            requirements: InstanceRequirements::default(),
            subnets: BTreeMap::from([("us-east-1a".into(), "subnet-01234567".into())]),
            ami: "ami-01234567".into(),
            instance_profile: Some("node".into()),
            security_groups: vec!["sg-01234567".into()],
            kms_key: None,
            volume_gib: 100,
            user_data: None,
            interruption_queue: None,
            tags: BTreeMap::from([("team".into(), "vision".into()), ("Name".into(), "mine".into())]),
        };
        let offer = Offer {
            provider: Provider::Aws,
            instance_type: "g5.xlarge".into(),
            zone: "us-east-1a".into(),
            kind,
            price: MoneyPerHour::usd("1").unwrap(),
            reservation: (kind == CapacityKind::Reserved).then(|| "cr-0123456789abcdef0".into()),
        };
        LaunchRequest { config, offer, count: 2, claim: "claim-1".into(), job: JobRef { namespace: "ml".into(), name: "bert".into(), uid: "u1".into() }, attempt: 3 }
    }

    #[test]
    fn a_lost_claim_can_be_rebuilt_from_the_tags() {
        let tags: BTreeMap<String, String> = instance_tags(&request(CapacityKind::Spot)).iter().map(|tag| (tag.key().unwrap().to_owned(), tag.value().unwrap().to_owned())).collect();
        let expected = [
            ("Name", "claim-1"),
            ("purser.dev/attempt", "3"),
            ("purser.dev/claim", "claim-1"),
            ("purser.dev/cluster", "cluster-1"),
            ("purser.dev/job", "ml/bert"),
            ("purser.dev/job-uid", "u1"),
            ("purser.dev/pool", "gpu"),
            ("team", "vision"),
        ];
        assert_eq!(tags, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    }

    fn not_launched(code: &str) -> NotLaunched {
        NotLaunched::builder().error_code(code).error_message("why").build()
    }

    #[test]
    fn each_refusal_says_what_to_try_next() {
        for (code, meaning) in [
            ("InsufficientInstanceCapacity", RefusalCode::NoCapacity),
            ("UnfulfillableCapacity", RefusalCode::NoCapacity),
            ("ReservationCapacityExceeded", RefusalCode::NoCapacity),
            ("VcpuLimitExceeded", RefusalCode::Quota),
            ("MaxSpotInstanceCountExceeded", RefusalCode::Quota),
            ("InsufficientFreeAddressesInSubnet", RefusalCode::NoAddresses),
            ("SpotMaxPriceTooLow", RefusalCode::PriceTooHigh),
            ("InvalidAMIID.NotFound", RefusalCode::Invalid),
            ("UnauthorizedOperation", RefusalCode::Invalid),
            ("SomethingNew", RefusalCode::NoCapacity),
        ] {
            assert_eq!(refusal_of(2, 0, &[not_launched(code)]), Some((meaning, format!("{code}: why"))));
        }
    }

    #[test]
    fn fewer_than_asked_is_partial_and_all_is_no_refusal() {
        assert_eq!(refusal_of(2, 1, &[not_launched("InsufficientInstanceCapacity")]).unwrap().0, RefusalCode::Partial);
        assert_eq!(refusal_of(2, 2, &[not_launched("InsufficientInstanceCapacity")]), None);
        assert_eq!(refusal_of(2, 0, &[]), None, "no answer at all");
    }

    #[test]
    fn what_may_have_been_done_is_never_called_a_refusal() {
        for code in ["InternalError", "RequestLimitExceeded", "Unavailable", "InvalidClientTokenId", "IdempotentParameterMismatch", "ExpiredToken"] {
            assert_eq!(refusal_code(code), None, "{code}");
        }
    }
}
