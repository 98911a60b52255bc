"""The CloudFormation template closes the network and encrypts the broker."""

from __future__ import annotations

import json

import pytest

from tests.deploy.stack import (
    LEAST,
    NARROW,
    PATH,
    SERVICES,
    WATCHED,
    WATCHER,
    container,
    environment,
    everything,
)
from tests.support.broker_rights import USERS, read_users, user_of
from tests.support.cloudformation import Template, load_template


def test_the_broker_speaks_tls_only_and_never_evicts(template: Template) -> None:
    broker = template.resource("Broker")
    assert broker["TransitEncryptionEnabled"] is True
    assert broker["TransitEncryptionMode"] == "required"
    assert broker["AtRestEncryptionEnabled"] is True
    assert broker["UserGroupIds"] == ["BrokerUsers"]
    parameters = template.resource(broker["CacheParameterGroupName"])
    assert parameters["Properties"] == {"maxmemory-policy": "noeviction"}
    assert broker["EngineVersion"].partition(".")[0] in parameters["CacheParameterGroupFamily"]
    for name in SERVICES:
        found = environment(template, name)
        for setting, database in (("CELERY_BROKER_URL", 0), ("CELERY_RESULT_BACKEND", 1)):
            assert found[setting] == (
                f"rediss://{user_of(name.lower())}@Broker-PrimaryEndPoint-Address:6379/{database}"
            )


def test_broker_users_have_the_recorded_rights(template: Template) -> None:
    """The record is deploy/valkey/users.acl; `make broker-users` writes both."""
    users = read_users(USERS.read_text())
    for name in SERVICES:
        found = template.resource(f"{name}BrokerUser")
        rules = users[found["UserName"]]
        assert found["UserName"] == user_of(name.lower())
        assert found["AccessString"].split() == [r for r in rules if not r.startswith(">")]
    assert users["default"] == ["off"]
    assert template.resource("BrokerDefaultUser")["AccessString"].split() == ["off", "-@all"]
    made = template.of_type("AWS::ElastiCache::User")
    assert set(template.resource("BrokerUsers")["UserIds"]) == set(made)


def test_each_role_has_its_own_password(template: Template) -> None:
    for name in SERVICES:
        secrets = {s["Name"]: s["ValueFrom"] for s in container(template, name)["Secrets"]}
        assert secrets.pop("BROKER_PASSWORD") == f"{name}BrokerSecret:password::"
        assert set(secrets) == ({"FLOWER_BASIC_AUTH"} if name == "Flower" else set())
        assert not {n for n in environment(template, name) if "PASS" in n or "AUTH" in n}
        mode = template.resource(f"{name}BrokerUser")["AuthenticationMode"]
        assert mode == {
            "Type": "password",
            "Passwords": [
                f"{{{{resolve:secretsmanager:{name}BrokerSecret:SecretString:password}}}}"
            ],
        }
        # The secret names the user, for whoever logs in by hand.
        secret = template.resource(f"{name}BrokerSecret")["GenerateSecretString"]
        assert json.loads(secret["SecretStringTemplate"]) == {"username": user_of(name.lower())}
    assert "resolve:" not in str(template.raw["Outputs"])


# -- the network


def test_no_service_accepts_connections_from_the_internet(template: Template) -> None:
    """Outgoing connections end within the stack or use HTTPS."""
    groups = template.of_type("AWS::EC2::SecurityGroup")
    for group in groups.values():
        # Without an egress rule, AWS adds one that allows everything.
        assert group["SecurityGroupEgress"]
        for rule in group.get("SecurityGroupIngress", ()):
            assert "CidrIp" not in rule
        for rule in group["SecurityGroupEgress"]:
            inside = rule.get("CidrIp") == "127.0.0.1/32" or "DestinationSecurityGroupId" in rule
            assert inside or rule["ToPort"] == 443
    came_in = template.of_type("AWS::EC2::SecurityGroupIngress").values()
    watchers = ("sg-0123456789", "BalancerSecurityGroup") if template.holds("IsWatched") else ()
    assert {(r["ToPort"], r["SourceSecurityGroupId"]) for r in came_in} == {
        (port, watcher) for port in (5555, 9464) for watcher in watchers
    }
    for name in SERVICES:
        network = template.resource(f"{name}Service")["NetworkConfiguration"]
        assert network["AwsvpcConfiguration"]["AssignPublicIp"] == "DISABLED"


def test_gateway_endpoints_are_reached_by_prefix_list() -> None:
    """Their addresses are public, so a narrow range does not contain them."""
    template = load_template(PATH, **LEAST, **NARROW)
    (https,) = template.resource("TaskSecurityGroup")["SecurityGroupEgress"]
    assert https["CidrIp"] == NARROW["HttpsEgressCidr"]
    rules = template.of_type("AWS::EC2::SecurityGroupEgress").values()
    lists = {rule["DestinationPrefixListId"]: rule["ToPort"] for rule in rules
             if "DestinationPrefixListId" in rule}  # fmt: skip
    assert lists == {NARROW["S3PrefixListId"]: 443, NARROW["DynamoDbPrefixListId"]: 443}


def test_the_load_balancer_is_internal_and_speaks_tls() -> None:
    template = everything()
    balancer = template.resource("Balancer")
    assert balancer["Scheme"] == "internal"
    group = template.resource(balancer["SecurityGroups"][0])
    assert {rule["SourceSecurityGroupId"] for rule in group["SecurityGroupIngress"]} == {
        WATCHER["WatcherSecurityGroupId"]
    }
    for name, port in (("Flower", 443), ("Exporter", 9464)):
        listener = template.resource(f"{name}Listener")
        assert (listener["Protocol"], listener["Port"]) == ("HTTPS", port)
        (action,) = listener["DefaultActions"]
        target = template.resource(action["TargetGroupArn"])
        service = template.resource(f"{name}Service")
        (balanced,) = service["LoadBalancers"]
        assert balanced["TargetGroupArn"] == action["TargetGroupArn"]
        assert balanced["ContainerName"] == container(template, name)["Name"]
        (mapping,) = container(template, name)["PortMappings"]
        assert balanced["ContainerPort"] == target["Port"] == mapping["ContainerPort"]
        assert target["HealthCheckPath"] in container(template, name)["HealthCheck"]["Command"][-1]
        # An implied dependency: the service waits for the listener.
        assert service["Tags"] == [{"Key": "listener", "Value": f"{name}Listener"}]


@pytest.mark.parametrize(
    ("parameters", "services"),
    [
        ({}, {"Worker", "Beat", "Exporter"}),
        ({"RunExporter": "false"}, {"Worker", "Beat"}),
        ({"RunExporter": "false", **WATCHER, **WATCHED}, {"Worker", "Beat", "Flower"}),
    ],
)
def test_a_disabled_service_leaves_no_resources(
    parameters: dict[str, str], services: set[str]
) -> None:
    template = load_template(PATH, **LEAST, **parameters)
    made = {name for name, resource in template.raw["Resources"].items()
            if "Condition" not in resource or template.holds(resource["Condition"])}  # fmt: skip
    assert {name.removesuffix("Service") for name in made if name.endswith("Service")} == services
    for name in set(SERVICES) - services:
        assert {other for other in made if other.startswith(name)} == set()
    # No remaining resource refers to one that was left out.
    text = str([template.resource(name) for name in made])
    gone = set(template.raw["Resources"]) - made
    assert {name for name in gone if f"'{name}'" in text or f"<{name}." in text} == set()
