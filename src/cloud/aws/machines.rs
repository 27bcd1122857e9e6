//! What can be had in a region: instance types, and the zones that offer them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use aws_sdk_ec2::types::{ArchitectureType, Filter, InstanceTypeInfo, LocationType, NetworkInfo, UsageClassType};

use super::failure::{Optional, failed, optional};
use super::region::AwsRegion;
use crate::capacity::InstanceType;
use crate::cloud::CloudError;

/// A type, with how it is sold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    pub what: InstanceType,
    pub sold_on_spot: bool,
    pub sold_on_demand: bool,
}

/// The zones that offer each type.
pub(super) type Offerings = HashMap<String, BTreeSet<String>>;

impl AwsRegion {
    /// Every type of the region by name. All are asked for at once: asking by name would fail as a whole for one wrong name.
    pub(super) async fn machines(&self) -> Result<Arc<BTreeMap<String, Machine>>, CloudError> {
        self.known.machines.get((), || self.load_machines()).await
    }

    async fn load_machines(&self) -> Result<Arc<BTreeMap<String, Machine>>, CloudError> {
        let types: Result<Vec<InstanceTypeInfo>, _> = self.ec2.describe_instance_types().into_paginator().items().send().collect().await;
        let types = types.map_err(|error| failed(format!("describe instance types in {}", self.name), error))?;
        Ok(Arc::new(types.iter().filter_map(machine_of).map(|machine| (machine.what.name.clone(), machine)).collect()))
    }

    /// The zones that offer each type. Without an answer every zone may: the launch will tell.
    pub(super) async fn offerings(&self) -> Optional<Arc<Offerings>> {
        self.known.offerings.get_optional((), || self.load_offerings()).await
    }

    async fn load_offerings(&self) -> Optional<Arc<Offerings>> {
        let request = self.ec2.describe_instance_type_offerings().location_type(LocationType::AvailabilityZone);
        let answer: Result<Vec<_>, _> = request.into_paginator().items().send().collect().await;
        let mut zones = Offerings::new();
        for offering in optional("the zones that offer each type", answer)? {
            if let (Some(name), Some(zone)) = (offering.instance_type(), offering.location()) {
                zones.entry(name.as_str().to_owned()).or_default().insert(zone.to_owned());
            }
        }
        Ok(Arc::new(zones))
    }
}

fn machine_of(info: &InstanceTypeInfo) -> Option<Machine> {
    let (gpus, gpu_name) = gpus_of(info);
    let sold = |class| info.supported_usage_classes().is_empty() || info.supported_usage_classes().contains(&class);
    Some(Machine {
        what: InstanceType {
            name: info.instance_type()?.as_str().to_owned(),
            vcpu: positive(info.v_cpu_info()?.default_v_cpus()?)?,
            memory_mib: u64::try_from(info.memory_info()?.size_in_mib()?).ok()?,
            gpus,
            gpu_name,
            architecture: architecture_of(info.processor_info()?.supported_architectures())?,
            pods: info.network_info().map(pods_of).unwrap_or_default(),
        },
        sold_on_spot: sold(UsageClassType::Spot),
        sold_on_demand: sold(UsageClassType::OnDemand),
    })
}

/// GPUs of NVIDIA and AMD. Gaudi is listed under GPUs as well, but no program for a GPU runs on it.
fn gpus_of(info: &InstanceTypeInfo) -> (u32, Option<String>) {
    let devices = info.gpu_info().map(|gpus| gpus.gpus()).unwrap_or_default();
    let device = devices.iter().find(|device| device.manufacturer() != Some("Habana"));
    match device.and_then(|device| Some((positive(device.count()?)?, device.name()?.to_owned()))) {
        Some((count, name)) => (count, Some(name)),
        None => (0, None),
    }
}

fn architecture_of(architectures: &[ArchitectureType]) -> Option<String> {
    architectures.iter().find_map(|architecture| match architecture {
        ArchitectureType::X8664 => Some("amd64".to_owned()),
        ArchitectureType::Arm64 => Some("arm64".to_owned()),
        // i386 and macOS run no Kubernetes node of ours.
        _ => None,
    })
}

/// Addresses for pods on the default network card: one of each interface is its own, and two pods use the host's.
fn pods_of(network: &NetworkInfo) -> u32 {
    let default = network.network_cards().iter().find(|card| card.network_card_index() == network.default_network_card_index());
    let interfaces = default.and_then(|card| card.maximum_network_interfaces()).or(network.maximum_network_interfaces());
    let of = |interfaces: i32, addresses: i32| u32::try_from(interfaces * (addresses - 1) + 2).ok();
    interfaces.zip(network.ipv4_addresses_per_interface()).and_then(|(interfaces, addresses)| of(interfaces, addresses)).unwrap_or_default()
}

fn positive(number: i32) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| *number > 0)
}

/// A filter as EC2 takes it.
pub(super) fn filter(name: &str, values: impl IntoIterator<Item = impl Into<String>>) -> Filter {
    Filter::builder().name(name).set_values(Some(values.into_iter().map(Into::into).collect())).build()
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{GpuDeviceInfo, GpuInfo, MemoryInfo, ProcessorInfo, VCpuInfo};

    use super::*;

    fn info(manufacturer: &str, name: &str, count: i32) -> InstanceTypeInfo {
        let device = GpuDeviceInfo::builder().manufacturer(manufacturer).name(name).count(count).build();
        InstanceTypeInfo::builder()
            .instance_type("g5.xlarge".into())
            .v_cpu_info(VCpuInfo::builder().default_v_cpus(4).build())
            .memory_info(MemoryInfo::builder().size_in_mib(16384).build())
            .processor_info(ProcessorInfo::builder().supported_architectures(ArchitectureType::I386).supported_architectures(ArchitectureType::X8664).build())
            .supported_usage_classes(UsageClassType::OnDemand)
            .gpu_info(GpuInfo::builder().gpus(device).build())
            .build()
    }

    #[test]
    fn a_type_is_read_in_kubernetes_words() {
        let machine = machine_of(&info("NVIDIA", "A10G", 1)).unwrap();
        assert_eq!((machine.what.architecture.as_str(), machine.what.gpus, machine.what.gpu_name.as_deref()), ("amd64", 1, Some("A10G")));
        assert!(machine.sold_on_demand && !machine.sold_on_spot);
    }

    #[test]
    fn a_share_of_a_gpu_or_a_gaudi_is_no_gpu() {
        assert_eq!(gpus_of(&info("NVIDIA", "L4", 0)), (0, None));
        assert_eq!(gpus_of(&info("Habana", "Gaudi HL-205", 8)), (0, None));
    }
}
