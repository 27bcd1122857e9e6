//! EC2, SQS, pricing and quotas through the AWS SDK. No SDK type leaves this folder.
