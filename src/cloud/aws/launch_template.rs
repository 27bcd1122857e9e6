//! The launch template of a pool: how its machines are made, whatever is asked of the market.
//!
//! A template's name is a hash of everything in it, so that ensuring it twice, or from two operators, is the same as once;
//! version 1 is launched from, and never changed. Volumes are always encrypted, whatever the image says; instance metadata
//! is to be had with a session token only, and not from pods (hop limit 1).

use aws_sdk_ec2::operation::create_launch_template::CreateLaunchTemplateError;
use aws_sdk_ec2::types::{
    BlockDeviceMapping, CapacityReservationPreference, CapacityReservationTarget, Image, LaunchTemplateBlockDeviceMappingRequest, LaunchTemplateCapacityReservationSpecificationRequest,
    LaunchTemplateEbsBlockDeviceRequest, LaunchTemplateHttpTokensState, LaunchTemplateIamInstanceProfileSpecificationRequest, LaunchTemplateInstanceMetadataOptionsRequest,
    LaunchTemplateTagSpecificationRequest, RequestLaunchTemplateData, ResourceType, ShutdownBehavior, Tag, TagSpecification, VolumeType,
};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use base64::Engine;
use sha2::Digest;

use super::fleet::{CLUSTER_TAG, LaunchFailure, POOL_TAG, tag};
use super::region::AwsRegion;
use crate::capacity::{CapacityKind, RefusalCode};
use crate::cloud::{LaunchRequest, PoolConfig};

/// Part of the name: raise it when what is built below changes, so that old templates are left behind.
const LAYOUT: u32 = 1;
const ALREADY_THERE: &str = "InvalidLaunchTemplateName.AlreadyExistsException";

/// What a template says about reservations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Draw<'a> {
    /// From this reservation and nothing else.
    Reservation(&'a str),
    /// From none: an on-demand machine must not use up an open reservation in silence, or meter and bill would differ.
    Market,
    /// Spot machines draw from reservations in no case, and EC2 takes no word on it.
    Spot,
}

impl<'a> Draw<'a> {
    fn of(request: &'a LaunchRequest) -> Result<Draw<'a>, LaunchFailure> {
        match (request.offer.kind, request.offer.reservation.as_deref()) {
            (CapacityKind::Reserved, Some(id)) => Ok(Draw::Reservation(id)),
            (CapacityKind::Reserved, None) => Err(LaunchFailure::refused(RefusalCode::Invalid, "the offer is reserved but names no reservation")),
            (CapacityKind::OnDemand, _) => Ok(Draw::Market),
            (CapacityKind::Spot, _) => Ok(Draw::Spot),
        }
    }
}

impl AwsRegion {
    /// Makes sure that the request's template exists, and tells its name.
    pub(super) async fn ensure_template(&self, request: &LaunchRequest) -> Result<String, LaunchFailure> {
        let draw = Draw::of(request)?;
        let name = template_name(&request.config, &draw);
        self.known.templates.get(name.clone(), || self.create_template(&name, &request.config, &draw)).await?;
        Ok(name)
    }

    async fn create_template(&self, name: &str, config: &PoolConfig, draw: &Draw<'_>) -> Result<(), LaunchFailure> {
        let image = self.image(&config.ami).await?;
        let tags = TagSpecification::builder().resource_type(ResourceType::LaunchTemplate).set_tags(Some(resource_tags(config))).build();
        let answer = self.ec2.create_launch_template().launch_template_name(name).client_token(name).launch_template_data(template_data(config, draw, &image)).tag_specifications(tags).send().await;
        match answer {
            Ok(_) => Ok(()),
            Err(error) if error.as_service_error().and_then(CreateLaunchTemplateError::code) == Some(ALREADY_THERE) => Ok(()),
            Err(error) => Err(LaunchFailure::of(format!("create launch template {name} in {}", self.name), error)),
        }
    }

    async fn image(&self, ami: &str) -> Result<Image, LaunchFailure> {
        let answer = self.ec2.describe_images().image_ids(ami).send().await.map_err(|error| LaunchFailure::of(format!("describe image {ami} in {}", self.name), error))?;
        let image = answer.images.into_iter().flatten().next();
        image.ok_or_else(|| LaunchFailure::refused(RefusalCode::Invalid, format!("there is no image {ami} in {} that this account may use", self.name)))
    }
}

fn template_name(config: &PoolConfig, draw: &Draw<'_>) -> String {
    // A new field of the pool must not be forgotten here.
    let PoolConfig { pool, cluster_id, region, requirements: _, subnets: _, ami, instance_profile, security_groups, kms_key, volume_gib, user_data, interruption_queue: _, tags } = config;
    let draw = match draw {
        Draw::Reservation(id) => id,
        Draw::Market => "on-demand",
        Draw::Spot => "spot",
    };
    let content = serde_json::json!([LAYOUT, pool, cluster_id, region, ami, instance_profile, security_groups, kms_key, volume_gib, user_data, tags, draw]);
    let digest = sha2::Sha256::digest(content.to_string());
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("purser-{hex}")
}

fn template_data(config: &PoolConfig, draw: &Draw<'_>, image: &Image) -> RequestLaunchTemplateData {
    let metadata = LaunchTemplateInstanceMetadataOptionsRequest::builder().http_tokens(LaunchTemplateHttpTokensState::Required).http_put_response_hop_limit(1).build();
    let tagged = |resource| LaunchTemplateTagSpecificationRequest::builder().resource_type(resource).set_tags(Some(resource_tags(config))).build();
    RequestLaunchTemplateData::builder()
        .image_id(&config.ami)
        .set_block_device_mappings(Some(encrypted_volumes(config, image)))
        .set_iam_instance_profile(config.instance_profile.as_deref().map(instance_profile))
        .set_security_group_ids(Some(config.security_groups.clone()).filter(|groups| !groups.is_empty()))
        .set_user_data(config.user_data.as_ref().map(|text| base64::engine::general_purpose::STANDARD.encode(text)))
        .metadata_options(metadata)
        // A machine that switches itself off would otherwise stay, stopped, with a volume that is paid for.
        .instance_initiated_shutdown_behavior(ShutdownBehavior::Terminate)
        .set_capacity_reservation_specification(reservation_words(draw))
        // The instances' own tags come with each launch; volumes can be tagged from here only.
        .tag_specifications(tagged(ResourceType::Volume))
        .build()
}

/// Every EBS volume that the image brings, encrypted; the root volume in the pool's size.
fn encrypted_volumes(config: &PoolConfig, image: &Image) -> Vec<LaunchTemplateBlockDeviceMappingRequest> {
    let root = image.root_device_name().unwrap_or("/dev/xvda");
    let mut others: Vec<&BlockDeviceMapping> = image.block_device_mappings().iter().filter(|mapping| mapping.ebs().is_some() && mapping.device_name() != Some(root)).collect();
    others.sort_by_key(|mapping| mapping.device_name());
    let mapped = image.block_device_mappings().iter().find(|mapping| mapping.device_name() == Some(root));
    let image_gib = mapped.and_then(|mapping| mapping.ebs()?.volume_size()).unwrap_or(0);
    // An image's snapshot does not fit a smaller volume.
    let root_gib = i32::try_from(config.volume_gib).unwrap_or(i32::MAX).max(image_gib);
    let others = others.into_iter().filter_map(|mapping| Some(volume(mapping.device_name()?, config, None)));
    std::iter::once(volume(root, config, Some(root_gib))).chain(others).collect()
}

fn volume(device: &str, config: &PoolConfig, gib: Option<i32>) -> LaunchTemplateBlockDeviceMappingRequest {
    let ebs = LaunchTemplateEbsBlockDeviceRequest::builder().encrypted(true).set_kms_key_id(config.kms_key.clone()).volume_type(VolumeType::Gp3).set_volume_size(gib).delete_on_termination(true).build();
    LaunchTemplateBlockDeviceMappingRequest::builder().device_name(device).ebs(ebs).build()
}

fn instance_profile(profile: &str) -> LaunchTemplateIamInstanceProfileSpecificationRequest {
    let builder = LaunchTemplateIamInstanceProfileSpecificationRequest::builder();
    if profile.starts_with("arn:") { builder.arn(profile) } else { builder.name(profile) }.build()
}

fn reservation_words(draw: &Draw<'_>) -> Option<LaunchTemplateCapacityReservationSpecificationRequest> {
    let builder = LaunchTemplateCapacityReservationSpecificationRequest::builder();
    match draw {
        Draw::Reservation(id) => Some(builder.capacity_reservation_target(CapacityReservationTarget::builder().capacity_reservation_id(*id).build()).build()),
        Draw::Market => Some(builder.capacity_reservation_preference(CapacityReservationPreference::None).build()),
        Draw::Spot => None,
    }
}

/// Tags of everything that is not one claim's.
fn resource_tags(config: &PoolConfig) -> Vec<Tag> {
    let own = [tag(CLUSTER_TAG, &config.cluster_id), tag(POOL_TAG, &config.pool)];
    config.tags.iter().map(|(key, value)| tag(key, value)).chain(own).collect()
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::EbsBlockDevice;

    use super::super::fleet::tests::request;
    use super::*;

    fn image() -> Image {
        let mapping = |device: &str, gib| BlockDeviceMapping::builder().device_name(device).ebs(EbsBlockDevice::builder().volume_size(gib).encrypted(false).build()).build();
        let scratch = BlockDeviceMapping::builder().device_name("/dev/sdb").virtual_name("ephemeral0").build();
        Image::builder().root_device_name("/dev/sda1").block_device_mappings(mapping("/dev/sdc", 20)).block_device_mappings(mapping("/dev/sda1", 200)).block_device_mappings(scratch).build()
    }

    #[test]
    fn every_volume_is_encrypted_and_the_root_is_large_enough_for_its_image() {
        let volumes = encrypted_volumes(&request(CapacityKind::Spot).config, &image());
        let told: Vec<_> = volumes.iter().map(|volume| (volume.device_name().unwrap(), volume.ebs().unwrap().encrypted(), volume.ebs().unwrap().volume_size())).collect();
        assert_eq!(told, [("/dev/sda1", Some(true), Some(200)), ("/dev/sdc", Some(true), None)]);
    }

    #[test]
    fn metadata_needs_a_token_and_stays_out_of_pods() {
        let request = request(CapacityKind::Spot);
        let data = template_data(&request.config, &Draw::of(&request).unwrap(), &image());
        let metadata = data.metadata_options().unwrap();
        assert_eq!((metadata.http_tokens(), metadata.http_put_response_hop_limit()), (Some(&LaunchTemplateHttpTokensState::Required), Some(1)));
        assert!(data.capacity_reservation_specification().is_none());
    }

    #[test]
    fn a_reserved_launch_draws_from_its_reservation_alone_and_an_on_demand_one_from_none() {
        let reserved = request(CapacityKind::Reserved);
        let words = reservation_words(&Draw::of(&reserved).unwrap()).unwrap();
        assert_eq!(words.capacity_reservation_target().unwrap().capacity_reservation_id(), Some("cr-0123456789abcdef0"));
        let words = reservation_words(&Draw::of(&request(CapacityKind::OnDemand)).unwrap()).unwrap();
        assert_eq!(words.capacity_reservation_preference(), Some(&CapacityReservationPreference::None));
    }

    #[test]
    fn the_same_content_has_the_same_name_and_other_content_another() {
        let one = request(CapacityKind::Spot);
        let mut other = one.clone();
        other.count = 7;
        other.offer.zone = "us-east-1b".into();
        let name = |request: &LaunchRequest| template_name(&request.config, &Draw::of(request).unwrap());
        assert_eq!(name(&one), name(&other), "what is asked of the market is not in the template");
        other.config.kms_key = Some("alias/other".into());
        assert_ne!(name(&one), name(&other));
        assert_ne!(name(&one), name(&request(CapacityKind::OnDemand)));
    }
}
