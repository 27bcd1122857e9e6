//! The instance types that simulated markets know, with their facts.
//!
//! Sizes and on-demand prices (USD, Linux, us-east-1) are those of 2025-05, p5 of 2026-07, as in the dated catalogue (MIT
//! and Apache-2.0 data). `spot_usual` is what spot costs where a market has no price series of its own: on-demand over
//! 3.1446, the ratio of p3.2xlarge in the published comparison of spot policies (3.06 / 0.9731).

use crate::capacity::InstanceType;
use crate::units::money::ATOMS_PER_UNIT;
use crate::units::{Money, MoneyPerHour};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineType {
    pub machine: InstanceType,
    /// Of each GPU.
    pub gpu_memory_mib: u32,
    pub on_demand: MoneyPerHour,
}

impl MachineType {
    /// On-demand / 3.1446, rounded down to 1/10000 USD as EC2 quotes spot.
    pub fn spot_usual(&self) -> MoneyPerHour {
        let atoms = self.on_demand.per_hour().atoms() * 10_000 / 31_446;
        MoneyPerHour(Money::usd_atoms(floor_to_quote(atoms)))
    }

    /// Which of EC2's vCPU quotas counts it.
    pub fn quota_class(&self) -> QuotaClass {
        QuotaClass::of(&self.machine.name)
    }
}

/// EC2 quotes spot prices with four decimals.
pub fn floor_to_quote(atoms: i128) -> i128 {
    let quantum = ATOMS_PER_UNIT / 10_000;
    (atoms / quantum).max(1) * quantum
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuotaClass {
    /// A, C, D, H, I, M, R, T, Z.
    Standard,
    /// G and VT.
    Graphics,
    /// P.
    Accelerated,
}

impl QuotaClass {
    pub fn of(instance_type: &str) -> QuotaClass {
        if instance_type.starts_with('p') {
            QuotaClass::Accelerated
        } else if instance_type.starts_with('g') || instance_type.starts_with("vt") {
            QuotaClass::Graphics
        } else {
            QuotaClass::Standard
        }
    }

    /// Quota codes for (on-demand, spot).
    pub fn codes(self) -> (&'static str, &'static str) {
        match self {
            QuotaClass::Standard => ("L-1216C47A", "L-34B43A08"),
            QuotaClass::Graphics => ("L-DB2E81BA", "L-3819A6DF"),
            QuotaClass::Accelerated => ("L-417A185B", "L-7212CCBC"),
        }
    }
}

/// The EC2 type that stands for a device of the published traces.
pub fn of_trace_device(device: &str) -> Option<MachineType> {
    let name = match device {
        "v100_1" => "p3.2xlarge",
        "v100_8" => "p3.16xlarge",
        "k80_1" => "p2.xlarge",
        "k80_8" => "p2.8xlarge",
        // a CPU machine whose size the publication does not say
        "intel_64" => "c6i.16xlarge",
        // GCP c3-highcpu-88: the next larger CPU machine of EC2 (96 vCPU)
        "c3-88" => "c6i.24xlarge",
        // GCP a3-highgpu-1g: one H100
        "h100_1" => "p5.4xlarge",
        _ => return None,
    };
    known(name)
}

/// Every device that [`of_trace_device`] knows, for messages.
pub const TRACE_DEVICES: &str = "v100_1, v100_8, k80_1, k80_8, intel_64, c3-88, h100_1";

pub fn known(name: &str) -> Option<MachineType> {
    KNOWN.iter().find(|row| row.name == name).map(Row::machine_type)
}

struct Row {
    name: &'static str,
    vcpu: u32,
    memory_gib: u64,
    gpus: u32,
    gpu_name: &'static str,
    gpu_memory_mib: u32,
    /// 1/10000 USD per hour.
    on_demand: i128,
}

const fn row(name: &'static str, (vcpu, memory_gib): (u32, u64), (gpus, gpu_name, gpu_memory_mib): (u32, &'static str, u32), on_demand: i128) -> Row {
    Row { name, vcpu, memory_gib, gpus, gpu_name, gpu_memory_mib, on_demand }
}

const KNOWN: &[Row] = &[
    row("c6i.2xlarge", (8, 16), (0, "", 0), 3_400),
    row("c6i.16xlarge", (64, 128), (0, "", 0), 27_200),
    row("c6i.24xlarge", (96, 192), (0, "", 0), 40_800),
    row("g4dn.xlarge", (4, 16), (1, "T4", 16_384), 5_260),
    row("g5.xlarge", (4, 16), (1, "A10G", 22_888), 10_060),
    row("g5.12xlarge", (48, 192), (4, "A10G", 22_888), 56_720),
    row("g6.xlarge", (4, 16), (1, "L4", 22_888), 8_048),
    row("m6i.xlarge", (4, 16), (0, "", 0), 1_920),
    row("m6i.4xlarge", (16, 64), (0, "", 0), 7_680),
    row("p2.xlarge", (4, 61), (1, "K80", 12_288), 9_000),
    row("p2.8xlarge", (32, 488), (8, "K80", 12_288), 72_000),
    row("p3.2xlarge", (8, 61), (1, "V100", 16_384), 30_600),
    row("p3.16xlarge", (64, 488), (8, "V100", 16_384), 244_800),
    row("p5.4xlarge", (16, 256), (1, "H100", 81_920), 68_800),
    row("p5.48xlarge", (192, 2_048), (8, "H100", 81_920), 550_400),
];

impl Row {
    fn machine_type(&self) -> MachineType {
        MachineType {
            machine: InstanceType {
                name: self.name.to_owned(),
                vcpu: self.vcpu,
                memory_mib: self.memory_gib * 1_024,
                gpus: self.gpus,
                gpu_name: (self.gpus > 0).then(|| self.gpu_name.to_owned()),
                architecture: "amd64".to_owned(),
                pods: 0,
            },
            gpu_memory_mib: self.gpu_memory_mib,
            on_demand: MoneyPerHour(Money::usd_atoms(self.on_demand * (ATOMS_PER_UNIT / 10_000))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_spot_of_a_v100_is_the_published_price() {
        let v100 = of_trace_device("v100_1").unwrap();
        assert_eq!((v100.machine.name.as_str(), v100.on_demand.to_string().as_str()), ("p3.2xlarge", "3.06 USD/h"));
        assert_eq!(v100.spot_usual().to_string(), "0.973 USD/h");
    }

    #[test]
    fn every_trace_device_is_a_known_machine() {
        assert!(TRACE_DEVICES.split(", ").all(|device| of_trace_device(device).is_some()));
    }
}
