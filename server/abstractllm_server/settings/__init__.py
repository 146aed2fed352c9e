"""The server's configuration: a YAML file, flags, and the environment's variables that these name."""

from abstractllm_server.settings.addresses import is_local
from abstractllm_server.settings.faults import ConfigurationFaultsError, faults_of
from abstractllm_server.settings.keys import LoadReportSettings, MetricsSettings, Role, ServerSettings, TlsSettings
from abstractllm_server.settings.loading import load_settings, locate

__all__ = [
    "ConfigurationFaultsError",
    "LoadReportSettings",
    "MetricsSettings",
    "Role",
    "ServerSettings",
    "TlsSettings",
    "faults_of",
    "is_local",
    "load_settings",
    "locate",
]
