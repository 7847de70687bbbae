"""The scenarios in the order in which they run, each with its bound: what clients may see at most."""

from reliability.environment import Environment
from reliability.outcome import ANY, Bound
from reliability.scenario import Scenario
from reliability.scenarios import faults, planned, recovery, rotation

# A request in flight when its pod dies is lost to the client, and so is the pod's share of what is sent until its
# endpoint is gone: of 40 requests a second and two pods, 20 a second.
POD_LOST = Bound(failed=60, errors=60, gap=2, outage=4, slowest=11)
# A node counts as lost 50 s after its last sign of life; then its endpoints leave the Service.
NODE_LOST = Bound(failed=ANY, errors=ANY, gap=2, outage=65, slowest=11)


def database_away(seconds: float) -> Bound:
    """Bound an outage: while the database is away every answer is a 503 with Retry-After within 3 s."""
    return Bound(failed=ANY, errors=0, gap=seconds, outage=seconds)


def database_node_lost(seconds: float) -> Bound:
    """Bound an outage in which requests may be lost, too."""
    return Bound(failed=ANY, errors=ANY, gap=seconds, outage=seconds, slowest=11)


OTHER, DATABASE = Environment.other_node, Environment.database_node
ALL = {
    scenario.name: scenario
    for scenario in (
        Scenario(planned.image_change, times=5),
        Scenario(planned.config_change),
        Scenario(planned.rollback, short=True),
        Scenario(planned.schema_change_and_rollback, short=True),
        Scenario(planned.scale_by_autoscaler, short=True),
        Scenario(planned.three_pods),
        Scenario(planned.drain, short=True, times=5, prepare=planned.crowd),
        Scenario(planned.helm_3_release, prepare=planned.install_by_helm_3),
        Scenario(planned.earlier_versions, prepare=planned.install_released),
        Scenario(rotation.password_by_secret),
        Scenario(rotation.password_quickly, short=True, prepare=lambda env: env.upgrade("--set", rotation.OVERLAP)),
        Scenario(rotation.password_by_helm, times=2),
        Scenario(rotation.password_by_rollout, times=2, prepare=lambda env: env.upgrade(values=rotation.VARIABLES)),
        Scenario(rotation.password_amid_faults),
        Scenario(rotation.token_rotation),
        Scenario(faults.web_pod_killed, POD_LOST, short=True),
        Scenario(faults.web_pod_out_of_memory, POD_LOST),
        Scenario(faults.node_killed, NODE_LOST, without_node=OTHER),
        Scenario(faults.database_node_killed, database_node_lost(120), without_node=DATABASE),
        Scenario(faults.node_partitioned, NODE_LOST, without_node=OTHER),
        Scenario(faults.database_node_partitioned, database_node_lost(60), without_node=DATABASE),
        Scenario(faults.database_pod_deleted, database_away(45), short=True),
        Scenario(faults.database_killed, database_away(45), short=True),
        Scenario(faults.database_black_holed, database_away(15), short=True),
        Scenario(faults.database_frozen, database_away(15)),
        Scenario(faults.database_connections_refused, database_away(15)),
        Scenario(faults.database_connections_dropped, Bound(failed=24, errors=0, outage=12)),
        Scenario(faults.database_slow, database_away(22)),
        Scenario(faults.too_many_connections, database_away(25)),
        Scenario(faults.dns_away),
        Scenario(faults.metrics_server_away),
        Scenario(faults.bad_image),
        Scenario(faults.failing_migration),
        Scenario(faults.helm_killed),
        Scenario(faults.two_upgrades),
        Scenario(faults.disk_full, database_away(90), prepare=faults.shrink_volume),
        Scenario(faults.clock_skew),
        Scenario(recovery.backup_and_restore, load=False),
        Scenario(recovery.uninstall_and_reinstall, load=False),
    )
}
