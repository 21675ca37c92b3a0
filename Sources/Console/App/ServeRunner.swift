import ArgumentParser
import Base
import CNcurses
import Foundation
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import PosixDisk
import Replica
import Server

/// Runs one node in the foreground until a signal ends it.
enum ServeRunner {
    /// - Returns: the process's exit status.
    /// - Throws: `CommandFailure` with one line (port in use, unreadable directory, data of another cluster).
    static func run(_ options: ServeOptions) throws -> Int32 {
        // Before anything starts a thread.
        let signals = SignalInbox.install()
        DescriptorLimit.raise()
        if options.locksMemory { try MemoryLock.take() }
        let sinks = try options.log.open()
        defer { for sink in sinks { sink.flush(withinSeconds: 1) } }
        let disk = PosixDisk(syncs: options.syncsDisk)
        let console = try options.console.map { try SupervisingConsole($0, Self.configuration(options), disk) }
        let logger = Logger(label: "quarterdeck") { _ in JSONLogHandler(level: options.log.level, sinks: sinks) }
        for warning in options.warnings { logger.warning("\(warning)") }
        let manager = options.console == nil ? ServiceManager() : nil
        let replicaGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        // Two loops for clients: one more than that only adds wake-ups on small machines, and the machine itself is one thread.
        let clientGroup = MultiThreadedEventLoopGroup(numberOfThreads: max(1, min(4, System.coreCount / 2)))
        let outcome = NIOLockedValueBox<Result<Node, NodeError>?>(nil)
        let started = Completion()
        let configuration = configuration(options)
        // A console that does not say how things stand is not there any more, and its end is ours.
        if let console, wait(for: console.hasOrdered, or: signals) { return 130 }
        Task.detached {
            var environment = NodeEnvironment(clientGroup: clientGroup, replicaGroup: replicaGroup, logger: logger)
            environment.disk = disk
            console?.faults.govern(&environment)
            // A member is of use once it has heard of a leader: etcd's moment, too.
            let isReady = NIOLockedValueBox(false)
            environment.observe = { note, _ in
                guard let manager, case .raft(.leaderChanged(let leader, _)) = note, leader != .none else { return }
                if isReady.withLockedValue({ ready in
                    defer { ready = true }
                    return !ready
                }) { manager.tell("READY=1") }
            }
            do throws(NodeError) {
                var configuration = configuration
                // With data a member knows its cluster.
                let isNew = !MemberFiles.hasLog(in: options.dataDirectory, logDirectory: options.logDirectory, disk: environment.disk)
                if let discovery = options.discovery, isNew { configuration.initialCluster = try await found(by: discovery, configuration, logger) }
                if let records = options.records {
                    do throws(CommandFailure) {
                        configuration.initialCluster = try records.members(name: configuration.name, own: configuration.initialAdvertisePeerURLs)
                        // All members know this one by its record's name, so it does too.
                        configuration.initialAdvertisePeerURLs = configuration.initialCluster.filter { $0.name == configuration.name }.map(\.url)
                        logger.info("got bootstrap from DNS", metadata: ["cluster": "\(configuration.initialCluster.map { "\($0.name)=\($0.url)" }.joined(separator: ","))"])
                    } catch {
                        guard !isNew else { throw .configuration(error.description) }
                        logger.warning("the DNS is not asked again", metadata: ["reason": "\(error.description)"])
                    }
                }
                let node = try await Node.start(configuration, in: environment)
                outcome.withLockedValue { $0 = .success(node) }
            } catch {
                outcome.withLockedValue { $0 = .failure(error) }
            }
            started.complete()
        }
        _ = wait(for: started, or: signals)
        guard let result = outcome.withLockedValue({ $0 }) else { return 130 }
        let node: Node
        switch result {
        case .success(let running): node = running
        case .failure(let error): throw CommandFailure(description: error.description)
        }
        let ended = Completion()
        let failure = NIOLockedValueBox<NodeError?>(nil)
        node.ended.whenSuccess { error in
            failure.withLockedValue { $0 = error }
            ended.complete()
        }
        if wait(for: ended, or: signals, or: console?.hasAskedToStop) {
            logger.info("stopping")
            manager?.tell("STOPPING=1")
            let isAlone = console?.hasAskedToStop.isComplete != true
            Task.detached { await node.stop(handingOver: isAlone) }
            // A second signal ends the wait for a clean stop.
            if wait(for: ended, or: signals) { return 130 }
        }
        // A member that was removed ends well, as etcd does: that was the wish.
        if case .removed? = failure.withLockedValue({ $0 }) { return 0 }
        if let error = failure.withLockedValue({ $0 }) { throw CommandFailure(description: error.description) }
        logger.info("stopped")
        return 0
    }

    private static func found(by discovery: DiscoveryOptions, _ configuration: NodeConfiguration, _ logger: Logger) async throws(NodeError) -> [(name: String, url: NodeURL)] {
        let urls = configuration.initialAdvertisePeerURLs.map(\.description)
        let own = urls.map { "\(configuration.name)=\($0)" }.joined(separator: ",")
        do {
            let text = try await Discovery.join(discovery, member: Identifiers.member(peerURLs: urls, token: discovery.token), own: own, logger: logger)
            logger.info("discovery joined cluster successfully", metadata: ["cluster": "\(text)"])
            return try NodeConfiguration.parseInitialCluster(text)
        } catch let error as NodeError { throw error } catch { throw .configuration("\(error)") }
    }

    /// True when a signal to end, or the order to stop, came first.
    private static func wait(for completion: Completion, or signals: SignalInbox, or order: Completion? = nil) -> Bool {
        var descriptors = [signals.descriptor, completion.descriptor] + (order.map { [$0.descriptor] } ?? [])
        while !completion.isComplete {
            _ = qd_wait(&descriptors, Int32(descriptors.count), 1_000_000_000)
            if order?.isComplete == true { return true }
            if signals.take().contains(where: { [.interrupt, .terminate, .hangUp, .quit].contains($0) }) { return true }
        }
        return false
    }

    /// The same, in the node's words.
    static func configuration(_ options: ServeOptions) -> NodeConfiguration {
        func url(_ url: ServiceURL) -> NodeURL { NodeURL(scheme: url.isTLS ? "https" : "http", host: url.host, port: url.port) }
        var configuration = NodeConfiguration()
        configuration.name = options.name
        configuration.dataDirectory = options.dataDirectory
        configuration.logDirectory = options.logDirectory ?? ""
        configuration.listenClientURLs = options.listenClientURLs.map(url)
        configuration.advertiseClientURLs = options.advertiseClientURLs.map(url)
        configuration.listenClientHTTPURLs = options.listenClientHTTPURLs.map(url)
        configuration.http = options.http
        configuration.listenMetricsURLs = options.listenMetricsURLs.map(url)
        configuration.listenPeerURLs = options.listenPeerURLs.map(url)
        configuration.initialAdvertisePeerURLs = options.initialAdvertisePeerURLs.map(url)
        configuration.initialCluster = options.initialCluster.flatMap { member in member.peerURLs.map { (name: member.name, url: url($0)) } }
        configuration.initialClusterToken = options.initialClusterToken
        configuration.isExistingCluster = options.initialClusterState == .existing
        configuration.options.raft.heartbeatInterval = .milliseconds(Int64(options.heartbeatIntervalMilliseconds))
        configuration.options.raft.electionTimeout = .milliseconds(Int64(options.electionTimeoutMilliseconds))
        configuration.options.snapshotCount = UInt64(options.snapshotCount)
        configuration.options.raft.keptEntries = options.snapshotCatchUpEntries
        configuration.options.quotaBytes = options.quotaBackendBytes
        configuration.options.maxRequestBytes = options.maxRequestBytes
        configuration.options.maxTxnOps = options.maxTxnOps
        configuration.options.maxLearners = options.maxLearners
        configuration.options.strictReconfigurationCheck = options.checksReconfiguration
        configuration.forcesNewCluster = options.forcesNewCluster
        // 0 is etcd's way to say the default, too.
        if options.authTokenTTLSeconds > 0 { configuration.options.authTokenTimeToLive = .seconds(Int64(options.authTokenTTLSeconds)) }
        configuration.authToken = options.authToken
        configuration.bcryptCost = options.bcryptCost
        configuration.autoCompaction = options.autoCompaction
        configuration.tls = options.tls
        configuration.advancesFirstElection = options.advancesFirstElection
        configuration.sharesPorts = options.sharesPorts
        configuration.checksFilesFirst = options.checksFilesFirst
        configuration.slowApply = options.slowApply
        configuration.syncsStore = options.syncsDisk
        configuration.options.raft.preVotes = options.preVotes
        configuration.options.watchProgressInterval = options.watchProgressInterval
        configuration.options.stateCheckInterval = options.stateCheckInterval
        if !options.checkpointsLeases { configuration.options.leaseCheckpointInterval = .zero }
        options.clientLimits.apply(to: &configuration.clientBounds)
        return configuration
    }
}

/// What a node's process knows of the console that started it.
private struct SupervisingConsole {
    /// Here, at the seams of the node, the console's faults act.
    let faults: NodeFaults
    /// The first order has come: how links, disk and clock are from the start.
    let hasOrdered = Completion()
    let hasAskedToStop = Completion()

    /// - Throws: `ExitCode` when the console has ended already.
    init(_ console: pid_t, _ configuration: NodeConfiguration, _ disk: PosixDisk) throws {
        guard Supervision.bind(to: console) else { throw ExitCode(137) }
        let urls = configuration.initialAdvertisePeerURLs.map(\.description)
        let faults = NodeFaults(member: Identifiers.member(peerURLs: urls, token: configuration.initialClusterToken), disk: disk)
        self.faults = faults
        Supervision.obey { [hasOrdered, hasAskedToStop] order in
            if let plan = order.plan { faults.obey(plan) }
            if order.stops == true, !hasAskedToStop.isComplete { hasAskedToStop.complete() }
            if !hasOrdered.isComplete { hasOrdered.complete() }
        }
    }
}
