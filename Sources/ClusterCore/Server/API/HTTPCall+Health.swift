import Base
import NIOCore
import NIOHTTP1
import Replica
import Store

/// A check of `/livez` or `/readyz`. (etcd-http.md §5)
enum HealthCheck: String, CaseIterable {
    case dataCorruption = "data_corruption"
    case serializableRead = "serializable_read"
    case linearizableRead = "linearizable_read"
    case nonLearner = "non_learner"

    enum Root: String, CaseIterable {
        case livez, readyz

        var checks: [HealthCheck] {
            switch self {
            case .livez: [.serializableRead]
            case .readyz: [.dataCorruption, .serializableRead, .linearizableRead, .nonLearner]
            }
        }
    }

    /// The checks behind a path: all of a root, or one; nil for another path.
    static func find(_ path: String) -> (root: Root, checks: [HealthCheck])? {
        for root in Root.allCases where path.hasPrefix("/" + root.rawValue) {
            if path.utf8.count == root.rawValue.utf8.count + 1 { return (root, root.checks) }
            if let check = root.checks.first(where: { path == "/\(root.rawValue)/\($0.rawValue)" }) { return (root, [check]) }
        }
        return nil
    }
}

extension HTTPCall {
    // MARK: Health

    /// Alarms, then the leader, then a read, as etcd has it. (§4)
    func health(_ target: HTTPTarget) {
        let serializable = target.value("serializable") == "true"
        let excluded = target.values("exclude")
        let status = loop.port.published
        for alarm in status?.alarms ?? [] where !excluded.contains(alarmName(alarm.kind)) {
            return unhealthy("ALARM \(alarmName(alarm.kind))")
        }
        if !serializable, status == nil || status?.raft.leader == MemberID.none { return unhealthy("RAFT NO LEADER") }
        loop.probe(linearizable: !serializable) { [self] error in
            guard !isOver else { return }
            if let error { return unhealthy("RANGE ERROR:\(error.message)") }
            loop.port.metrics.healthSuccesses.add(1, ordering: .relaxed)
            respond(.ok, Array("{\"health\":\"true\",\"reason\":\"\"}".utf8), [("Content-Type", "text/plain; charset=utf-8")])
        }
    }

    private func unhealthy(_ reason: String) {
        loop.port.metrics.healthFailures.add(1, ordering: .relaxed)
        respondText(.serviceUnavailable, "{\"health\":\"false\",\"reason\":\(ProtobufToJSON.quoted(reason))}\n")
    }

    func check(_ target: HTTPTarget) {
        guard var (root, checks) = HealthCheck.find(target.path) else { preconditionFailure("no check at \(target.path)") }
        if target.path == "/" + root.rawValue {
            let excluded = target.values("exclude")
            checks.removeAll { excluded.contains($0.rawValue) }
        }
        run(checks[...], of: root, verbose: target.has("verbose"), lines: "", failed: false)
    }

    private func run(_ checks: ArraySlice<HealthCheck>, of root: HealthCheck.Root, verbose: Bool, lines: String, failed: Bool) {
        guard !isOver else { return }
        guard let check = checks.first else {
            // Go ends the text of an error with a line end of its own.
            if failed { return respondText(.serviceUnavailable, lines + "\n") }
            return respondText(.ok, verbose ? lines + "ok\n" : "ok\n")
        }
        func finish(_ failure: String?) {
            loop.port.metrics.checked(root, check, succeeded: failure == nil)
            let line = failure.map { "[-]\(check.rawValue) failed: \($0)\n" } ?? "[+]\(check.rawValue) ok\n"
            run(checks.dropFirst(), of: root, verbose: verbose, lines: lines + line, failed: failed || failure != nil)
        }
        switch check {
        case .serializableRead: loop.probe(linearizable: false) { finish($0?.message) }
        case .linearizableRead: loop.probe(linearizable: true) { finish($0?.message) }
        case .dataCorruption:
            let corrupt = loop.port.published?.alarms.contains { $0.kind == Alarm.corrupt } ?? false
            finish(corrupt ? "alarm activated: CORRUPT" : nil)
        case .nonLearner: finish(loop.port.published?.isLearner ?? false ? "not supported for learner" : nil)
        }
    }

    // MARK: Metrics

    func metrics() {
        let loops = loop.siblings.isEmpty ? [loop] : loop.siblings
        let counters = loops.map { sibling in sibling.eventLoop.submit { sibling.counters } }
        EventLoopFuture.whenAllSucceed(counters, on: loop.eventLoop).assumeIsolated().whenComplete { [self] result in
            guard !isOver, case .success(let parts) = result else { return }
            var sum = CallCounters()
            for part in parts { sum.add(part) }
            let text = MetricsText.render(identity: loop.identity, status: loop.port.published, metrics: loop.port.metrics, calls: sum)
            respond(.ok, Array(text.utf8), [("Content-Type", "text/plain; version=0.0.4; charset=utf-8")])
            // Nobody else does: this comes from the other loops.
            loop.flushTouched()
        }
    }

    /// What this process has of etcd's variables; Go's memory figures are Go's. (§6)
    func variables() {
        var lines = ["\"cmdline\": [\(CommandLine.arguments.map(ProtobufToJSON.quoted).joined(separator: ","))]",
                     "\"file_descriptor_limit\": \(ProcessFigures.read().maxDescriptors)"]
        if let status = loop.port.published {
            let raft = status.raft
            let role = switch raft.role {
            case .follower: "StateFollower"
            case .preCandidate: "StatePreCandidate"
            case .candidate: "StateCandidate"
            case .leader: "StateLeader"
            }
            lines.append("\"raft.status\": {\"id\":\"\(raft.id)\",\"term\":\(raft.hardState.term.rawValue),\"vote\":\"\(raft.hardState.vote)\","
                + "\"commit\":\(raft.commit.rawValue),\"lead\":\"\(raft.leader)\",\"raftState\":\"\(role)\",\"applied\":\(status.applied.rawValue)}")
        }
        respond(.ok, Array("{\n\(lines.joined(separator: ",\n"))\n}\n".utf8), [("Content-Type", "application/json; charset=utf-8")])
    }
}
