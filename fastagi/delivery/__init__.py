"""Delivery of finished recordings to sinks: at least once, for days, without delaying a call.

The sinks are for users, `DeliveryWorker` is for the app. Due deliveries and outcomes are in `fastagi.store`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastagi.exports import exports

__all__ = [
    "CommandSink",
    "CompositeSink",
    "DeliveryWorker",
    "Dispatcher",
    "LocalFileSink",
    "ObjectStoreSink",
    "RecordingSink",
    "SinkRegistry",
    "VconSink",
    "WebhookSink",
    "current_delivery",
    "open_dispatcher",
]

if TYPE_CHECKING:
    from fastagi.delivery.dispatch import Dispatcher
    from fastagi.delivery.opening import open_dispatcher
    from fastagi.delivery.registry import SinkRegistry
    from fastagi.delivery.sink import RecordingSink, current_delivery
    from fastagi.delivery.sinks.command import CommandSink
    from fastagi.delivery.sinks.composite import CompositeSink
    from fastagi.delivery.sinks.local import LocalFileSink
    from fastagi.delivery.sinks.objectstore import ObjectStoreSink
    from fastagi.delivery.sinks.vcon import VconSink
    from fastagi.delivery.sinks.webhook import WebhookSink
    from fastagi.delivery.worker import DeliveryWorker
else:
    __getattr__, __dir__ = exports(
        __name__,
        __all__,
        {
            "fastagi.delivery.sinks.command": ["CommandSink"],
            "fastagi.delivery.sinks.composite": ["CompositeSink"],
            "fastagi.delivery.worker": ["DeliveryWorker"],
            "fastagi.delivery.dispatch": ["Dispatcher"],
            "fastagi.delivery.sinks.local": ["LocalFileSink"],
            "fastagi.delivery.sinks.objectstore": ["ObjectStoreSink"],
            "fastagi.delivery.opening": ["open_dispatcher"],
            "fastagi.delivery.registry": ["SinkRegistry"],
            "fastagi.delivery.sink": ["RecordingSink", "current_delivery"],
            "fastagi.delivery.sinks.vcon": ["VconSink"],
            "fastagi.delivery.sinks.webhook": ["WebhookSink"],
        },
    )
