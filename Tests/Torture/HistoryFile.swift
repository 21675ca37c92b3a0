import Foundation
import Simulation

/// A run's history as JSON lines, for people and for scripts: one line a call, in the order of their starts, then one line a watch.
enum HistoryFile {
    static func write(_ evidence: Evidence, to path: String) throws {
        var out = ""
        for operation in evidence.operations { out += line(json(operation)) }
        for watch in evidence.watches { out += line(json(watch)) }
        try Data(out.utf8).write(to: URL(fileURLWithPath: path))
    }

    private static func line(_ object: [String: Any]) -> String {
        // Only text, numbers, lists and dictionaries: nothing that could fail.
        String(decoding: (try? JSONSerialization.data(withJSONObject: object, options: [.sortedKeys, .withoutEscapingSlashes])) ?? Data(), as: UTF8.self) + "\n"
    }

    private static func json(_ kv: SeenKeyValue) -> [String: Any] {
        ["key": Truth.text(kv.key), "value": Truth.text(kv.value), "create": kv.createRevision, "mod": kv.modRevision, "version": kv.version, "lease": kv.lease]
    }

    private static func json(_ operation: ClientOperation) -> [String: Any] {
        var object: [String: Any] = ["client": operation.client, "member": String(operation.member, radix: 16), "start": operation.start, "end": operation.end]
        switch operation.call {
        case .put(let key, let value, let lease): object["call"] = ["put": Truth.text(key), "value": Truth.text(value), "lease": lease] as [String: Any]
        case .delete(let key, let end): object["call"] = ["delete": Truth.text(key), "end": Truth.text(end)]
        case .range(let key, let end, let revision, let isSerializable):
            object["call"] = ["range": Truth.text(key), "end": Truth.text(end), "revision": revision, "serializable": isSerializable] as [String: Any]
        case .compareAndSwap(let key, let expected, let value): object["call"] = ["cas": Truth.text(key), "expected": expected, "value": Truth.text(value)] as [String: Any]
        case .putAll(let pairs): object["call"] = ["putAll": pairs.map { [Truth.text($0.key), Truth.text($0.value)] }]
        case .compact(let revision): object["call"] = ["compact": revision]
        case .leaseGrant(let id, let ttl): object["call"] = ["leaseGrant": id, "ttl": ttl]
        case .leaseRevoke(let id): object["call"] = ["leaseRevoke": id]
        case .leaseKeepAlive(let id): object["call"] = ["leaseKeepAlive": id]
        }
        switch operation.outcome {
        case .done(let revision, let found, let count, let succeeded):
            object["done"] = ["revision": revision, "found": found.map(json), "count": count, "succeeded": succeeded] as [String: Any]
        case .lease(let revision, let ttl): object["lease"] = ["revision": revision, "ttl": ttl]
        case .refused(let reason): object["refused"] = reason
        case .unknown: object["unknown"] = true
        }
        return object
    }

    private static func json(_ watch: WatchRecord) -> [String: Any] {
        ["watch": Truth.text(watch.key), "end": Truth.text(watch.end), "client": watch.client, "member": String(watch.member, radix: 16), "from": watch.startRevision,
         "previous": watch.wantsPrevious, "puts": watch.wantsPuts, "deletes": watch.wantsDeletes, "opened": watch.openedAt, "closed": watch.closedAt ?? -1,
         "messages": watch.messages.map { entry -> [String: Any] in
            switch entry.message {
            case .created(let revision): ["at": entry.at, "created": revision]
            case .progress(let revision): ["at": entry.at, "progress": revision]
            case .cancelled(let compacted, let reason): ["at": entry.at, "cancelled": reason, "compacted": compacted]
            case .events(let events, let revision, _):
                ["at": entry.at, "header": revision, "events": events.map { event -> [String: Any] in
                    var object = json(event.kv)
                    object["delete"] = event.isDelete
                    if let previous = event.previous { object["previous"] = json(previous) }
                    return object
                }]
            }
         }]
    }
}
