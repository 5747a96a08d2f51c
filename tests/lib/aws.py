# SPDX-License-Identifier: Apache-2.0
"""boto3 clients of a cloud's accounts. Debian's boto3 ignores AWS_ENDPOINT_URL and would call Amazon: the address is
always given."""
import os

import boto3
import botocore.session
from botocore.config import Config

# So that neither the caller's settings nor his proxy decide what a test does.
for _name in [n for n in os.environ if n.startswith("AWS_") or n.lower() in ("http_proxy", "https_proxy", "all_proxy")]:
    del os.environ[_name]
os.environ.update(AWS_EC2_METADATA_DISABLED="true", AWS_CONFIG_FILE="/dev/null", AWS_SHARED_CREDENTIALS_FILE="/dev/null")

# No retries: an error that a retry would hide is a finding.
DEFAULTS = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=60,
                  s3={"addressing_style": "path"})


class Clients:
    """Makes clients of one cloud; equal ones are made once, since reading EC2's model takes a second."""

    def __init__(self, cloud):
        self.cloud = cloud
        self._sessions = {}
        self._clients = {}
        self._loader = botocore.session.get_session().get_component("data_loader")

    def _session(self, account):
        if account not in self._sessions:
            core = botocore.session.Session()
            core.register_component("data_loader", self._loader)
            env = self.cloud.account_env(account)
            self._sessions[account] = boto3.Session(
                aws_access_key_id=env["AWS_ACCESS_KEY_ID"], aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
                region_name=env["AWS_DEFAULT_REGION"], botocore_session=core)
        return self._sessions[account]

    def __call__(self, service, account="default", **kw):
        """kw goes to boto3's client(); a `config` is merged into ours."""
        key = (service, account) if not kw else None
        if key in self._clients:
            return self._clients[key]
        config = DEFAULTS.merge(kw.pop("config")) if "config" in kw else DEFAULTS
        kw.setdefault("endpoint_url", self.cloud.endpoint(service, account))
        client = self._session(account).client(service, config=config, **kw)
        if key:
            self._clients[key] = client
        return client
