import Base
import Foundation
import Server

extension ServeOptions {
    /// All settings together, checked against each other. etcd's rules and messages where it has them.
    init(_ settings: ServeSettings) throws(CommandFailure) {
        var settings = settings
        func wrong(_ line: String) -> CommandFailure { CommandFailure(description: line, status: 64) }
        let name = settings.text("name")
        guard !name.contains("="), !name.contains(",") else { throw wrong("--name \(name): must not contain = or ,") }
        // A file leaves the default, as etcd does.
        if settings.file == nil, settings.isGiven("listen-client-urls"), !settings.isGiven("advertise-client-urls") {
            throw wrong("--advertise-client-urls is required when --listen-client-urls is set explicitly")
        }
        let records = try settings.recordDiscovery()
        let discovery = try settings.discovery()
        if [discovery != nil, records != nil, settings.isGiven("initial-cluster")].filter({ $0 }).count > 1 {
            throw wrong("multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery\", \"discovery-endpoints\" or \"discovery-srv\"")
        }
        let advertisePeer = try settings.urls("initial-advertise-peer-urls")
        let members = try ServeOptions.members(settings.text("initial-cluster"), name: name, own: advertisePeer)
        let heartbeat = settings.number("heartbeat-interval")
        let election = settings.number("election-timeout")
        guard election >= 5 * heartbeat else {
            throw wrong("--election-timeout[\(election)ms] should be at least as 5 times as --heartbeat-interval[\(heartbeat)ms]")
        }
        let compaction: AutoCompaction
        do throws(NodeError) {
            compaction = try AutoCompaction(mode: settings.text("auto-compaction-mode"), retention: settings.text("auto-compaction-retention"))
        } catch { throw wrong(error.description) }

        self.init(
            name: name, dataDirectory: settings.textIfAny("data-dir") ?? "\(name).etcd",
            listenClientURLs: try settings.urls("listen-client-urls"), advertiseClientURLs: try settings.urls("advertise-client-urls"),
            listenMetricsURLs: try settings.urls("listen-metrics-urls"), listenPeerURLs: try settings.urls("listen-peer-urls"),
            initialAdvertisePeerURLs: advertisePeer, initialCluster: members,
            initialClusterToken: discovery?.token ?? settings.text("initial-cluster-token"),
            initialClusterState: ClusterStateFlag(rawValue: settings.text("initial-cluster-state"))!,
            heartbeatIntervalMilliseconds: heartbeat, electionTimeoutMilliseconds: election,
            snapshotCount: settings.number("snapshot-count"), snapshotCatchUpEntries: settings.number("experimental-snapshot-catchup-entries"),
            quotaBackendBytes: Int64(settings.number("quota-backend-bytes")), maxRequestBytes: settings.number("max-request-bytes"),
            maxTxnOps: settings.number("max-txn-ops"), maxLearners: settings.number("experimental-max-learners"),
            checksReconfiguration: settings.truth("strict-reconfig-check"), forcesNewCluster: settings.truth("force-new-cluster"),
            authToken: settings.text("auth-token"), authTokenTTLSeconds: settings.number("auth-token-ttl"), bcryptCost: settings.number("bcrypt-cost"),
            autoCompaction: compaction, discovery: discovery, records: records, tls: NodeTLS(settings))
        if let directory = settings.textIfAny("wal-dir") { logDirectory = URL(fileURLWithPath: directory).standardizedFileURL.path }
        log = try LogOptions(&settings)
        listenClientHTTPURLs = try settings.urls("listen-client-http-urls")
        http = try HTTPAccess(settings)
        clientLimits = ClientLimits(settings)
        advancesFirstElection = settings.truth("initial-election-tick-advance")
        preVotes = settings.truth("pre-vote")
        sharesPorts = settings.truth("socket-reuse-port")
        locksMemory = settings.truth("experimental-memory-mlock")
        syncsDisk = !settings.truth("unsafe-no-fsync")
        if !syncsDisk { settings.warn("--unsafe-no-fsync: nothing waits for the disk; a power cut can take acknowledged writes, votes, and this member's data with them") }
        slowApply = settings.time("experimental-warning-apply-duration")
        checksFilesFirst = settings.truth("experimental-initial-corrupt-check")
        let interval = settings.time("experimental-corrupt-check-time")
        if interval > .zero { stateCheckInterval = interval }
        if settings.text("metrics") == "extensive" { settings.warn("--metrics extensive has no effect: /metrics has no histograms of gRPC calls") }
        try takeLeaseCheckpoints(&settings)
        takeProgressInterval(&settings)
        if settings.isGiven("supervised") { console = pid_t(settings.number("supervised")) }
        warnings = settings.warnings
    }

    private static func members(_ text: String, name: String, own advertised: [ServiceURL]) throws(CommandFailure) -> [InitialMember] {
        func wrong(_ line: String) -> CommandFailure { CommandFailure(description: line, status: 64) }
        var members: [InitialMember] = []
        for part in text.split(separator: ",") {
            guard let equals = part.firstIndex(of: "="), equals != part.startIndex else { throw wrong("--initial-cluster: \"\(part)\" is not name=url") }
            let member = part[..<equals].trimmingCharacters(in: .whitespaces)
            let url: ServiceURL
            do { url = try ServiceURL(parsing: String(part[part.index(after: equals)...])) } catch { throw wrong("--initial-cluster: \(error.description)") }
            if let index = members.firstIndex(where: { $0.name == member }) {
                members[index].peerURLs.append(url)
            } else {
                members.append(InitialMember(name: member, peerURLs: [url]))
            }
        }
        if members.isEmpty { members = [InitialMember(name: name, peerURLs: advertised)] }
        guard let me = members.first(where: { $0.name == name }) else { throw wrong("couldn't find local name \"\(name)\" in the initial cluster configuration") }
        guard Set(me.peerURLs) == Set(advertised) else {
            throw wrong("--initial-cluster has \(name)=\(me.peerURLs.map(\.description).joined(separator: ",")) but --initial-advertise-peer-urls is \(advertised.map(\.description).joined(separator: ","))")
        }
        let all = members.flatMap(\.peerURLs)
        guard Set(all).count == all.count else { throw wrong("--initial-cluster: two members have the same URL") }
        return members
    }

    private mutating func takeLeaseCheckpoints(_ settings: inout ServeSettings) throws(CommandFailure) {
        checkpointsLeases = settings.truth("experimental-enable-lease-checkpoint")
        let persists = settings.truth("experimental-enable-lease-checkpoint-persist")
        guard settings.isGiven("experimental-enable-lease-checkpoint-persist") else { return }
        guard !persists || checkpointsLeases else {
            throw CommandFailure(description: "setting experimental-enable-lease-checkpoint-persist requires experimental-enable-lease-checkpoint", status: 64)
        }
        if !persists, checkpointsLeases { settings.warn("--experimental-enable-lease-checkpoint-persist=false has no effect: what is left of a lease is always kept durably") }
    }

    private static let shortestProgressInterval = TimeSpan.milliseconds(100)

    private mutating func takeProgressInterval(_ settings: inout ServeSettings) {
        watchProgressInterval = settings.time("experimental-watch-progress-notify-interval")
        guard watchProgressInterval < ServeOptions.shortestProgressInterval else { return }
        watchProgressInterval = ServeOptions.shortestProgressInterval
        settings.warn("--experimental-watch-progress-notify-interval \(settings.text("experimental-watch-progress-notify-interval")): taken for 100ms, the least")
    }
}
