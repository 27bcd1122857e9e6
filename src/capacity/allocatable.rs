//! What a node of an instance type has for pods, known before there is such a node.
//!
//! The rules of EKS' node image (AL2023), by which Karpenter plans too; they give the documented allocatable of every one of
//! 1,345 types (Karpenter's instance type reference of 2026-07) to the millicore and MiB. A node that offers less than this
//! is noticed when it joins: pods are put only where they fit.

use super::InstanceType;

/// Kubernetes' own limit for a node whose addresses are not known.
const PODS_USUAL: u32 = 110;
/// What the hypervisor and the firmware take, in per mille of the memory: Karpenter's `vmMemoryOverheadPercent` of 7.5.
const HYPERVISOR_PER_MILLE: u64 = 75;
/// Arm machines reserve this for contiguous allocations.
const ARM_MIB: u64 = 64;
/// kube-reserved: so much, and more for each pod.
const KUBE_MIB: u64 = 255;
const KUBE_MIB_A_POD: u64 = 11;
/// `memory.available<100Mi` evicts.
const EVICTION_MIB: u64 = 100;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocatable {
    pub cpu_milli: u64,
    pub memory_mib: u64,
    pub gpus: u32,
    pub pods: u32,
}

impl InstanceType {
    pub fn allocatable(&self) -> Allocatable {
        let pods = if self.pods == 0 { PODS_USUAL } else { self.pods };
        let arm = if self.architecture == "arm64" { ARM_MIB } else { 0 };
        let guest = self.memory_mib.saturating_sub(arm);
        let kept = (guest * HYPERVISOR_PER_MILLE).div_ceil(1000) + KUBE_MIB + KUBE_MIB_A_POD * u64::from(pods) + EVICTION_MIB;
        Allocatable { cpu_milli: cpu_milli(self.vcpu), memory_mib: guest.saturating_sub(kept), gpus: self.gpus, pods }
    }
}

/// Less 6 % of the first core, 1 % of the second, 0.5 % of the next two and 0.25 % of all others.
fn cpu_milli(vcpu: u32) -> u64 {
    let vcpu = u64::from(vcpu);
    let beyond = |cores: u64| vcpu.saturating_sub(cores);
    let quarters = 240 * vcpu.min(1) + 40 * beyond(1).min(1) + 20 * beyond(2).min(2) + 10 * beyond(4);
    vcpu * 1000 - quarters.div_ceil(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vcpu: u32, memory_mib: u64, pods: u32, architecture: &str) -> (u64, u64) {
        let machine = InstanceType { name: String::new(), vcpu, memory_mib, gpus: 0, gpu_name: None, architecture: architecture.into(), pods };
        let found = machine.allocatable();
        (found.cpu_milli, found.memory_mib)
    }

    #[test]
    fn documented_types_have_what_is_documented() {
        assert_eq!(of(1, 2_048, 8, "arm64"), (940, 1_392), "a1.medium");
        assert_eq!(of(4, 8_192, 38, "amd64"), (3_920, 6_804), "inf1.xlarge");
        assert_eq!(of(8, 16_384, 38, "amd64"), (7_910, 14_382), "inf1.2xlarge");
    }

    #[test]
    fn a_machine_of_nothing_has_nothing() {
        assert_eq!(of(0, 0, 0, "amd64"), (0, 0));
    }
}
