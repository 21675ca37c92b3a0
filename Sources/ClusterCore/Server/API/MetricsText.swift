import Base
import Raft
import Replica
import Synchronization
import Wire

/// The page behind `/metrics`: Prometheus text format 0.0.4, with etcd's names. (etcd-http.md §7)
struct MetricsText {
    private var text = ""

    static func render(identity: NodeIdentity, status: ReplicaStatus?, metrics: NodeMetrics, calls: CallCounters) -> String {
        var page = MetricsText()
        page.text.reserveCapacity(128 << 10)
        if let status { page.member(identity, status) }
        page.server(identity, metrics)
        page.grpc(calls)
        page.process(calls)
        return page.text
    }

    // MARK: The member

    private mutating func member(_ identity: NodeIdentity, _ status: ReplicaStatus) {
        let leads = status.raft.leader == identity.member
        let count = status.counters
        gauge("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.", status.raft.leader == .none ? 0 : 1)
        gauge("etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.", leads ? 1 : 0)
        gauge("etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise.", status.isLearner ? 1 : 0)
        counter("etcd_server_leader_changes_seen_total", "The number of leader changes seen.", count.leaderChanges)
        gauge("etcd_server_proposals_committed_total", "The index of the last committed log entry.", status.raft.commit.rawValue)
        gauge("etcd_server_proposals_applied_total", "The index of the last applied log entry.", status.applied.rawValue)
        gauge("etcd_server_proposals_pending", "The current number of pending proposals to commit.", UInt64(max(0, count.proposalsPending)))
        counter("etcd_server_proposals_failed_total", "The total number of failed proposals seen.", count.proposalsFailed)
        gauge("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes.", signed: identity.options.effectiveQuotaBytes)
        gauge("etcd_mvcc_db_total_size_in_bytes", "Total size of the underlying database physically allocated in bytes.", signed: status.size.allocatedBytes)
        gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Total size of the underlying database logically in use in bytes.", signed: status.size.usedBytes)
        counter("etcd_mvcc_put_total", "Total number of puts seen by this member.", count.puts)
        counter("etcd_mvcc_delete_total", "Total number of deletes seen by this member.", count.deletes)
        counter("etcd_mvcc_txn_total", "Total number of txns seen by this member.", count.txns)
        counter("etcd_debugging_mvcc_events_total", "Total number of events sent by this member.", count.events)
        gauge("etcd_debugging_auth_revision", "The current revision of auth store.", signed: Int64(clamping: status.authRevision))
        gauge("etcd_debugging_mvcc_current_revision", "The current revision of store.", signed: status.revision.rawValue)
        gauge("etcd_debugging_mvcc_compact_revision", "The revision of the last compaction in store.", signed: status.compactRevision)
        gauge("etcd_debugging_mvcc_watcher_total", "Total number of watchers.", UInt64(max(0, status.watchers)))
        counter("etcd_debugging_lease_granted_total", "The total number of granted leases.", count.leasesGranted)
        counter("etcd_debugging_lease_revoked_total", "The total number of revoked leases.", count.leasesRevoked)
        counter("etcd_debugging_lease_renewed_total", "The number of renewed leases seen by the leader.", count.leasesRenewed)
        counter("etcd_debugging_server_lease_expired_total", "The total number of expired leases.", count.leasesExpired)
        let peers = status.membership.members.filter { $0.id != identity.member }
        if !peers.isEmpty {
            describe("etcd_network_known_peers", "The current number of known peers.", "gauge")
            for peer in peers { line("etcd_network_known_peers", "Local=\"\(identity.member)\",Remote=\"\(peer.id)\"", "1") }
        }
        if !status.alarms.isEmpty {
            describe("etcd_debugging_server_alarms", "Alarms for every member in cluster. 1 for 'server_id' label with current ID.", "gauge")
            for alarm in status.alarms { line("etcd_debugging_server_alarms", "alarm_type=\"\(alarmName(alarm.kind))\",server_id=\"\(alarm.member)\"", "1") }
        }
    }

    private mutating func server(_ identity: NodeIdentity, _ metrics: NodeMetrics) {
        describe("etcd_server_id", "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.", "gauge")
        line("etcd_server_id", "server_id=\"\(identity.member)\"", "1")
        describe("etcd_server_version", "Which version is running. 1 for 'server_version' label with current version.", "gauge")
        line("etcd_server_version", "server_version=\"\(ServerVersion.etcd)\"", "1")
        describe("etcd_cluster_version", "Which version is running. 1 for 'cluster_version' label with current cluster version", "gauge")
        line("etcd_cluster_version", "cluster_version=\"\(ServerVersion.cluster.split(separator: ".").prefix(2).joined(separator: "."))\"", "1")
        describe("quarterdeck_build_info", "The version of this server's own software.", "gauge")
        line("quarterdeck_build_info", "version=\"\(ServerVersion.quarterdeck)\"", "1")
        counter("etcd_server_slow_apply_total", "The total number of slow apply requests.", metrics.slowApplies.load(ordering: .relaxed))
        histogram("etcd_disk_wal_fsync_duration_seconds", "The latency distributions of fsync called by WAL.", metrics.walFsync)
        histogram("etcd_disk_backend_commit_duration_seconds", "The latency distributions of commit called by backend.", metrics.backendCommit)
        gauge("etcd_disk_wal_write_bytes_total", "Total number of bytes written in WAL.", metrics.walWriteBytes.load(ordering: .relaxed))
        counter("etcd_network_client_grpc_received_bytes_total", "The total number of bytes received from grpc clients.",
                metrics.clientReceivedBytes.load(ordering: .relaxed))
        counter("etcd_network_client_grpc_sent_bytes_total", "The total number of bytes sent to grpc clients.",
                metrics.clientSentBytes.load(ordering: .relaxed))
        peers(metrics)
        counter("etcd_server_health_success", "The total number of successful health checks", metrics.healthSuccesses.load(ordering: .relaxed))
        counter("etcd_server_health_failures", "The total number of failed health checks", metrics.healthFailures.load(ordering: .relaxed))
        healthChecks(metrics)
    }

    private mutating func peers(_ metrics: NodeMetrics) {
        let peers = metrics.peers
        func perPeer(_ name: String, _ help: String, _ label: String, _ value: (PeerCounters) -> UInt64) {
            let values = peers.map { (label: "\(label)=\"\($0.id)\"", value: value($0.counters)) }.filter { $0.value > 0 }
            guard !values.isEmpty else { return }
            describe(name, help, "counter")
            for each in values { line(name, each.label, "\(each.value)") }
        }
        perPeer("etcd_network_peer_received_bytes_total", "The total number of bytes received from peers.", "From") { $0.receivedBytes.load(ordering: .relaxed) }
        perPeer("etcd_network_peer_sent_bytes_total", "The total number of bytes sent to peers.", "To") { $0.sentBytes.load(ordering: .relaxed) }
        perPeer("etcd_network_peer_sent_failures_total", "The total number of send failures from peers.", "To") { $0.sendFailures.load(ordering: .relaxed) }
        // Measured by the leader alone, with its heartbeats.
        let measured = peers.filter { $0.counters.roundTrip.read().counts.contains { $0 > 0 } }
        guard !measured.isEmpty else { return }
        describe("etcd_network_peer_round_trip_time_seconds", "Round-Trip-Time histogram between peers", "histogram")
        for peer in measured { buckets("etcd_network_peer_round_trip_time_seconds", "To=\"\(peer.id)\"", peer.counters.roundTrip) }
    }

    /// Only checks that ran have a series, as in etcd.
    private mutating func healthChecks(_ metrics: NodeMetrics) {
        let checks = metrics.healthChecks.map { count in
            (name: count.check.rawValue, type: count.root.rawValue, successes: count.successes.load(ordering: .relaxed),
             failures: count.failures.load(ordering: .relaxed), last: count.lastSucceeded.load(ordering: .relaxed))
        }.filter { $0.successes + $0.failures > 0 }
        guard !checks.isEmpty else { return }
        describe("etcd_server_healthcheck", "The result of each kind of healthcheck.", "gauge")
        for check in checks { line("etcd_server_healthcheck", "name=\"\(check.name)\",type=\"\(check.type)\"", check.last ? "1" : "0") }
        describe("etcd_server_healthchecks_total", "The total number of each kind of healthcheck.", "counter")
        for check in checks {
            for (status, count) in [("success", check.successes), ("error", check.failures)] where count > 0 {
                line("etcd_server_healthchecks_total", "name=\"\(check.name)\",status=\"\(status)\",type=\"\(check.type)\"", "\(count)")
            }
        }
    }

    // MARK: Calls

    private mutating func grpc(_ calls: CallCounters) {
        let labels = MethodID.allCases.map { method in
            let type = switch method.kind {
            case .unary: "unary"
            case .serverStream: "server_stream"
            case .bidirectional: "bidi_stream"
            }
            return "grpc_method=\"\(method.name)\",grpc_service=\"\(method.service)\",grpc_type=\"\(type)\""
        }
        describe("grpc_server_started_total", "Total number of RPCs started on the server.", "counter")
        for (at, label) in labels.enumerated() { line("grpc_server_started_total", label, "\(calls.started[at])") }
        describe("grpc_server_handled_total", "Total number of RPCs completed on the server, regardless of success or failure.", "counter")
        for (method, label) in zip(MethodID.allCases, labels) {
            for code in StatusCode.allCases {
                line("grpc_server_handled_total", "grpc_code=\"\(code.metricName)\",\(label)", "\(calls.handled(method, code))")
            }
        }
        describe("grpc_server_msg_received_total", "Total number of RPC stream messages received on the server.", "counter")
        for (at, label) in labels.enumerated() { line("grpc_server_msg_received_total", label, "\(calls.received[at])") }
        describe("grpc_server_msg_sent_total", "Total number of gRPC stream messages sent by the server.", "counter")
        for (at, label) in labels.enumerated() { line("grpc_server_msg_sent_total", label, "\(calls.sent[at])") }
        gauge("quarterdeck_client_connections", "Client connections that are open.", UInt64(max(0, calls.connections)))
    }

    // MARK: The process

    private mutating func process(_ calls: CallCounters) {
        let process = ProcessFigures.read()
        describe("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", "counter")
        line("process_cpu_seconds_total", "", "\(process.cpuSeconds)")
        gauge("process_resident_memory_bytes", "Resident memory size in bytes.", process.residentBytes)
        gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", process.virtualBytes)
        gauge("process_open_fds", "Number of open file descriptors.", process.openDescriptors)
        gauge("process_max_fds", "Maximum number of open file descriptors.", process.maxDescriptors)
        describe("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", "gauge")
        line("process_start_time_seconds", "", "\(process.startSeconds)")
        gauge("os_fd_used", "The number of used file descriptors.", process.openDescriptors)
        gauge("os_fd_limit", "The file descriptor limit.", process.maxDescriptors)
    }

    // MARK: Lines

    private mutating func describe(_ name: String, _ help: String, _ type: String) {
        text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n"
    }
    private mutating func line(_ name: String, _ labels: String, _ value: String) {
        text += name
        if !labels.isEmpty {
            text += "{"
            text += labels
            text += "}"
        }
        text += " "
        text += value
        text += "\n"
    }
    private mutating func gauge(_ name: String, _ help: String, _ value: UInt64) {
        describe(name, help, "gauge")
        line(name, "", "\(value)")
    }
    private mutating func gauge(_ name: String, _ help: String, signed value: Int64) {
        describe(name, help, "gauge")
        line(name, "", "\(value)")
    }
    private mutating func counter(_ name: String, _ help: String, _ value: UInt64) {
        describe(name, help, "counter")
        line(name, "", "\(value)")
    }
    private mutating func histogram(_ name: String, _ help: String, _ histogram: BucketHistogram) {
        describe(name, help, "histogram")
        buckets(name, "", histogram)
    }
    private mutating func buckets(_ name: String, _ labels: String, _ histogram: BucketHistogram) {
        let prefix = labels.isEmpty ? "" : labels + ","
        let (counts, sum) = histogram.read()
        var total: UInt64 = 0
        for (bound, count) in zip(histogram.bounds, counts) {
            total += count
            line("\(name)_bucket", "\(prefix)le=\"\(bound)\"", "\(total)")
        }
        total += counts.last ?? 0
        line("\(name)_bucket", "\(prefix)le=\"+Inf\"", "\(total)")
        line("\(name)_sum", labels, "\(sum)")
        line("\(name)_count", labels, "\(total)")
    }
}
