"""What benchmarks/simgrid_flows.py asks of SimGrid, by a Python that has it: JSON on stdin, JSON on stdout.

{"links": {name: bytes/s}, "flows": [{"start": s, "nbytes": n, "route": [link, ...]}]} answers {"ends": [s, ...]};
{"seconds": [each worker's per step, ...], "rounds": n} answers {"clock": s, "taken": CPU seconds of the run}.
Nothing of Paceline is imported. SimGrid is set to pure max-min: no corrections for TCP, latencies 0.
"""

from __future__ import annotations

import json
import sys
from time import process_time
from typing import Any

from simgrid import Actor, Barrier, Comm, Engine, Host, LinkInRoute, NetZone, this_actor

PURE = {
    "network/model": "CM02",
    "network/TCP-gamma": "0",
    "network/bandwidth-factor": "1",
    "network/latency-factor": "1",
    "network/weight-S": "0",
    "network/crosstraffic": "0",
}


def flows(engine: Any, zone: Any, ask: dict[str, Any]) -> dict[str, Any]:
    """When each flow is over."""
    links = {name: zone.create_link(name, bandwidth).seal() for name, bandwidth in ask["links"].items()}
    ends = [None] * len(ask["flows"])

    def send(number: int, start: float, nbytes: int) -> None:
        this_actor.sleep_until(start)
        Comm.sendto(Host.by_name(f"from {number}"), Host.by_name(f"to {number}"), nbytes)
        ends[number] = engine.clock

    for number, flow in enumerate(ask["flows"]):
        a, b = (zone.create_host(f"{side} {number}", 1e9).seal() for side in ("from", "to"))
        route = [LinkInRoute(links[name]) for name in flow["route"]]
        zone.add_route(a.netpoint, b.netpoint, None, None, route, True)
        Actor.create(f"flow {number}", a, send, number, flow["start"], flow["nbytes"])
    zone.seal()
    engine.run()
    return {"ends": ends}


def barriers(engine: Any, zone: Any, ask: dict[str, Any]) -> dict[str, Any]:
    """Workers compute, then wait for one another, time and again."""
    barrier = Barrier(len(ask["seconds"]))

    def work(seconds: float) -> None:
        for _ in range(ask["rounds"]):
            this_actor.execute(seconds * 1e9)
            barrier.wait()

    for number, seconds in enumerate(ask["seconds"]):
        host = zone.create_host(f"host {number}", 1e9).seal()
        Actor.create(f"worker {number}", host, work, seconds)
    zone.seal()
    begin = process_time()
    engine.run()
    return {"clock": engine.clock, "taken": process_time() - begin}


def main() -> None:
    engine = Engine(["simgrid_run", *(f"--cfg={key}:{value}" for key, value in PURE.items()), "--log=root.thres:error"])
    zone = NetZone.create_full_zone("zone")
    ask = json.load(sys.stdin)
    print(json.dumps((flows if "flows" in ask else barriers)(engine, zone, ask)))


main()
