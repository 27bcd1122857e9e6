//! Launch templates and their versions.

use std::collections::BTreeMap;

use super::{Call, page_size};
use crate::twin::journal::{Entry, Template};
use crate::twin::protocol::{AwsError, Filters, Params, Xml, page, tag_filter, tags_for, timestamp};
use crate::twin::world::{ACCOUNT, World};

pub fn create(world: &mut World, call: &Call) -> Result<String, AwsError> {
    let name = call.params.required("LaunchTemplateName")?;
    let data = call.params.under("LaunchTemplateData").into_map();
    if let Some(existing) = named(world, call.region, name).next() {
        // The same again, with its token, is the same template.
        let is_repeat = call.params.text("ClientToken").is_some() && existing.data == data && existing.version == 1;
        return if is_repeat { Ok(template_text(world, existing)) } else { Err(AwsError::client("InvalidLaunchTemplateName.AlreadyExistsException", "Launch template name already in use.")) };
    }
    let id = id_for(call.region, name, world.entries().len());
    let tags = tags_for(call.params, "launch-template");
    let template = Template { at: world.now(), region: call.region.to_owned(), id, name: name.to_owned(), version: 1, data, tags };
    world.record(Entry::Template(template.clone()));
    Ok(template_text(world, &template))
}

pub fn create_version(world: &mut World, call: &Call) -> Result<String, AwsError> {
    let mut latest = find(world, call.region, &latest_of(call.params))?;
    let source = call.params.text("SourceVersion").map(str::to_owned);
    let mut data = match source {
        Some(version) => find(world, call.region, &specification(&latest.id, &version))?.data,
        None => BTreeMap::new(),
    };
    data.extend(call.params.under("LaunchTemplateData").into_map());
    latest.version += 1;
    (latest.at, latest.data) = (world.now(), data);
    world.record(Entry::Template(latest.clone()));
    let mut xml = Xml::default();
    xml.node("launchTemplateVersion", |xml| version(xml, &latest));
    Ok(xml.into_text())
}

pub fn describe(world: &World, call: &Call) -> Result<String, AwsError> {
    let (ids, names) = (call.params.list("LaunchTemplateId"), call.params.list("LaunchTemplateName"));
    for id in &ids {
        find(world, call.region, &specification(id, "$Latest"))?;
    }
    for name in &names {
        named(world, call.region, name).next().ok_or_else(|| AwsError::client("InvalidLaunchTemplateName.NotFoundException", format!("The specified launch template, with template name {name}, does not exist.")))?;
    }
    let first = world.templates.iter().filter(|template| {
        template.region == call.region
            && template.version == 1
            && (ids.is_empty() || ids.contains(&template.id.as_str()))
            && (names.is_empty() || names.contains(&template.name.as_str()))
    });
    let kept = Filters::of(call.params).keep(first, |template, name| match name {
        "launch-template-name" => Some(vec![template.name.clone()]),
        _ => tag_filter(&template.tags, name),
    })?;
    let (page, next) = page(kept, call.params.text("NextToken"), page_size(call, 200)?)?;
    let mut xml = Xml::default();
    xml.items("launchTemplates", page, |xml, template| summary(xml, world, template));
    xml.optional("nextToken", next);
    Ok(xml.into_text())
}

pub fn describe_versions(world: &World, call: &Call) -> Result<String, AwsError> {
    let versions = call.params.list("LaunchTemplateVersion");
    let template = find(world, call.region, &latest_of(call.params))?;
    let found = if versions.is_empty() {
        world.templates.iter().filter(|other| other.id == template.id).cloned().collect()
    } else {
        versions.iter().map(|version| find(world, call.region, &specification(&template.id, version))).collect::<Result<Vec<_>, _>>()?
    };
    let (page, next) = page(found, call.params.text("NextToken"), page_size(call, 200)?)?;
    let mut xml = Xml::default();
    xml.items("launchTemplateVersionSet", page, |xml, template| version(xml, &template));
    xml.optional("nextToken", next);
    Ok(xml.into_text())
}

pub fn delete(world: &mut World, call: &Call) -> Result<String, AwsError> {
    let template = find(world, call.region, &latest_of(call.params))?;
    let answer = template_text(world, &template);
    world.record(Entry::TemplateDeleted { id: template.id });
    Ok(answer)
}

/// The version that `LaunchTemplateId` or `LaunchTemplateName` with `Version` (a number, `$Latest` or `$Default`) means.
pub fn find(world: &World, region: &str, wanted: &Params) -> Result<Template, AwsError> {
    let (id, name) = (wanted.text("LaunchTemplateId"), wanted.text("LaunchTemplateName"));
    let versions: Vec<&Template> = world
        .templates
        .iter()
        .filter(|template| template.region == region && (id.is_some() || name.is_some()))
        .filter(|template| id.is_none_or(|id| template.id == id) && name.is_none_or(|name| template.name == name))
        .collect();
    let found = match wanted.text("Version") {
        Some("$Latest") => versions.last(),
        None | Some("$Default") => versions.first(),
        Some(number) => versions.iter().find(|template| template.version.to_string() == number),
    };
    found.map(|template| (*template).clone()).ok_or_else(|| match (versions.is_empty(), id) {
        (true, Some(id)) => AwsError::client("InvalidLaunchTemplateId.NotFound", format!("The specified launch template, with template ID {id}, does not exist.")),
        (true, None) => AwsError::client("InvalidLaunchTemplateName.NotFoundException", format!("The specified launch template, with template name {}, does not exist.", name.unwrap_or(""))),
        (false, _) => AwsError::client("InvalidLaunchTemplateId.VersionNotFound", format!("Could not find launch template version {}.", wanted.text("Version").unwrap_or(""))),
    })
}

fn latest_of(params: &Params) -> Params {
    let mut map = params.clone().into_map();
    map.insert("Version".into(), "$Latest".into());
    Params::from_map(map)
}

fn specification(id: &str, version: &str) -> Params {
    Params::from_map([("LaunchTemplateId".to_owned(), id.to_owned()), ("Version".to_owned(), version.to_owned())].into())
}

fn named<'a>(world: &'a World, region: &'a str, name: &'a str) -> impl Iterator<Item = &'a Template> {
    world.templates.iter().filter(move |template| template.region == region && template.name == name)
}

fn id_for(region: &str, name: &str, number: usize) -> String {
    let hex = crate::twin::eventbridge::id_of(&format!("{region}/{name}/{number}")).replace('-', "");
    format!("lt-{}", &hex[..17])
}

fn template_text(world: &World, template: &Template) -> String {
    let mut xml = Xml::default();
    xml.node("launchTemplate", |xml| summary(xml, world, template));
    xml.into_text()
}

fn summary(xml: &mut Xml, world: &World, template: &Template) {
    let latest = world.templates.iter().filter(|other| other.id == template.id).map(|other| other.version).max().unwrap_or(template.version);
    xml.field("launchTemplateId", &template.id);
    xml.field("launchTemplateName", &template.name);
    xml.field("createTime", timestamp(template.at));
    xml.field("createdBy", format!("arn:aws:iam::{ACCOUNT}:user/twin"));
    xml.field("defaultVersionNumber", 1);
    xml.field("latestVersionNumber", latest);
    xml.tag_set(&template.tags);
}

fn version(xml: &mut Xml, template: &Template) {
    xml.field("launchTemplateId", &template.id);
    xml.field("launchTemplateName", &template.name);
    xml.field("versionNumber", template.version);
    xml.field("createTime", timestamp(template.at));
    xml.field("createdBy", format!("arn:aws:iam::{ACCOUNT}:user/twin"));
    xml.field("defaultVersion", template.version == 1);
    xml.node("launchTemplateData", |xml| template_data(xml, &Params::from_map(template.data.clone())));
}

/// The parts of the data that say how safe and how dear an instance is.
fn template_data(xml: &mut Xml, data: &Params) {
    for (parameter, field) in [("ImageId", "imageId"), ("InstanceType", "instanceType"), ("UserData", "userData"), ("KeyName", "keyName"), ("EbsOptimized", "ebsOptimized")] {
        xml.optional(field, data.text(parameter));
    }
    if data.under("IamInstanceProfile") != Params::default() {
        xml.node("iamInstanceProfile", |xml| {
            xml.optional("arn", data.text("IamInstanceProfile.Arn"));
            xml.optional("name", data.text("IamInstanceProfile.Name"));
        });
    }
    xml.items("blockDeviceMappingSet", data.children("BlockDeviceMapping"), |xml, device| {
        xml.optional("deviceName", device.text("DeviceName"));
        xml.node("ebs", |xml| {
            for (parameter, field) in [("Encrypted", "encrypted"), ("DeleteOnTermination", "deleteOnTermination"), ("KmsKeyId", "kmsKeyId"), ("VolumeSize", "volumeSize"), ("VolumeType", "volumeType")] {
                xml.optional(field, device.text(&format!("Ebs.{parameter}")));
            }
        });
    });
    xml.texts("securityGroupIdSet", data.list("SecurityGroupId"));
    if data.under("MetadataOptions") != Params::default() {
        xml.node("metadataOptions", |xml| {
            for (parameter, field) in [("HttpTokens", "httpTokens"), ("HttpPutResponseHopLimit", "httpPutResponseHopLimit"), ("HttpEndpoint", "httpEndpoint")] {
                xml.optional(field, data.text(&format!("MetadataOptions.{parameter}")));
            }
        });
    }
    if let Some(id) = data.text("CapacityReservationSpecification.CapacityReservationTarget.CapacityReservationId") {
        xml.node("capacityReservationSpecification", |xml| {
            xml.node("capacityReservationTarget", |xml| xml.field("capacityReservationId", id));
        });
    }
    xml.items("tagSpecificationSet", data.children("TagSpecification"), |xml, specification| {
        xml.optional("resourceType", specification.text("ResourceType"));
        xml.tag_set(&crate::twin::protocol::tags(&specification).into_iter().collect());
    });
}
