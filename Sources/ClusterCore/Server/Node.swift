import Base
import LMDBBackend
import Log
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import PosixDisk
import Raft
import Replica
import Store

/// What a node gets from outside instead of reaching for it.
public struct NodeEnvironment: Sendable {
    public var disk: any Disk = PosixDisk()
    /// Comes between the node and the store that it opened.
    public var wrapBackend: @Sendable (any Backend) -> any Backend = { $0 }
    /// Makes calls to `disk` and the backend that hang return with an error, for a node that is killed or cannot wait any longer.
    public var interruptDisk: @Sendable () -> Void = {}
    public var clock: any NodeClock = SystemClock()
    public var links: any LinkPolicy = OpenLinks()
    /// Carries the client connections; several nodes of a process may share it.
    public var clientGroup: any EventLoopGroup
    /// Loops for the machine and its peers: each node takes one.
    public var replicaGroup: any EventLoopGroup
    public var logger: Logger
    /// A number that no earlier run used.
    public var seed: UInt64
    /// News of the member, on its loop; must return at once.
    public var observe: (@Sendable (ReplicaNote, WallTime) -> Void)?

    public init(clientGroup: any EventLoopGroup, replicaGroup: any EventLoopGroup, logger: Logger, seed: UInt64 = .random(in: .min ... .max)) {
        self.clientGroup = clientGroup
        self.replicaGroup = replicaGroup
        self.logger = logger
        self.seed = seed
    }
}

/// A running member: files, threads, connections, and the machine in the middle.
public final class Node: @unchecked Sendable {
    // @unchecked: what changes after `start` is under `state`'s lock or confined to the replica loop.
    public let identity: NodeIdentity
    public let configuration: NodeConfiguration
    public var metrics: NodeMetrics { driver.metrics }
    /// Completes when the node has ended: nil after `stop` or `kill`, else why it could not go on.
    public let ended: EventLoopFuture<NodeError?>

    let driver: ReplicaDriver
    private let loop: any EventLoop
    private let peers: PeerTransport
    private let listeners: [ClientListener]
    private let diskThread: DiskThread
    private let backendThread: BackendThread
    private let snapshots: SnapshotSender
    private let locks: [DirectoryLock]
    private let interruptDisk: @Sendable () -> Void
    /// On the replica loop.
    private var autoCompaction: AutoCompactionTimer?
    private let logger: Logger
    private let endedPromise: EventLoopPromise<NodeError?>
    private enum Phase { case running, stopping, stopped }
    private let phase = NIOLockedValueBox(Phase.running)
    /// Must stay the last property.
    let remains = Remains()

    /// Loads the files and starts to listen. Returns when clients and peers can connect; does not wait for a leader.
    public static func start(_ configuration: NodeConfiguration, in environment: NodeEnvironment) async throws(NodeError) -> Node {
        do {
            return try await make(configuration, environment)
        } catch let error as NodeError {
            throw error
        } catch {
            throw .stopped("\(error)")
        }
    }

    private static func make(_ configuration: NodeConfiguration, _ environment: NodeEnvironment) async throws -> Node {
        try configuration.validate()
        var options = configuration.options
        options.name = configuration.name
        options.clientURLs = configuration.advertiseClientURLs.map(\.description)
        let auth = try AuthDesk(tokens: configuration.authToken, bcryptCost: configuration.bcryptCost)
        let dataDirectory = configuration.effectiveDataDirectory
        let locks: [DirectoryLock]
        do { locks = try ([dataDirectory] + [configuration.separateLogDirectory].compactMap { $0 }).map { try DirectoryLock(directory: $0) } } catch {
            throw NodeError.dataDirectory("\(error)")
        }
        let failed = NIOLockedValueBox<(@Sendable (String) -> Void)?>(nil)
        let fail: @Sendable (String) -> Void = { reason in failed.withLockedValue { $0 }?(reason) }
        // Loading takes as long as the store is large, and as long as the disk is stuck: neither on a loop nor on a thread that others wait for.
        let mapSize = LMDBBackend.mapSizeBytes(quotaBytes: Int(min(options.effectiveQuotaBytes, 1 << 40)))
        let stores = StoreDirectory.lmdb(in: dataDirectory, disk: environment.disk, mapSizeBytes: mapSize, syncs: configuration.syncsStore, damageMet: { fail("\($0.message)") },
                                         wrapBackend: environment.wrapBackend)
        let files = MemberFiles(dataDirectory: dataDirectory, logDirectory: configuration.separateLogDirectory, disk: environment.disk, stores: stores)
        let unchecked = UncheckedBox(files)
        let known = try await onOwnThread("\(configuration.name)-look") {
            try look(unchecked.value, verifying: configuration.checksFilesFirst)
        }
        let tls = try await onOwnThread("\(configuration.name)-tls") { [logger = environment.logger] in try NodePorts(configuration, logger: logger) }
        let role = try await configuration.role(known: known, dialer: tls.dialer, on: environment.replicaGroup)
        let cluster = role.identity.cluster
        let own = role.identity.member
        let identity = NodeIdentity(cluster: cluster, member: own, name: configuration.name, options: options)
        let opened = try await onOwnThread("\(configuration.name)-start") {
            let files = unchecked.value
            do throws(MemberFiles.Fault) {
                let opened = try files.open(identity: role.identity, members: role.founders, mayFound: role.contacts == nil, contacts: role.contacts,
                                            forcesNewCluster: configuration.forcesNewCluster)
                guard configuration.isMember(role, opened.state) else {
                    throw .log(.foreign(segment: files.logDirectory, expected: role.claimed!, found: role.identity))
                }
                return UncheckedBox(opened)
            } catch .removed {
                throw NodeError.removed
            } catch {
                throw NodeError.dataDirectory("\(error)")
            }
        }
        let state = opened.value.state
        var logger = environment.logger
        logger[metadataKey: "member"] = "\(configuration.name)"
        if let repair = opened.value.repair { logger.warning("\(repair)") }
        guard state.membership.member(own) != nil || state.contacts.contains(where: { $0.id == own }) || state.applied.index > .zero else {
            throw NodeError.dataDirectory("\(dataDirectory) belongs to another member: point this member at its own data directory")
        }

        let loop = environment.replicaGroup.next()
        let metrics = NodeMetrics()
        let clock = environment.clock
        let backend = opened.value.backend
        var generator = SeededGenerator(seed: environment.seed)
        let incarnation = UInt32(truncatingIfNeeded: generator.next())
        let replica = UncheckedBox(Replica(
            id: own, cluster: cluster, options: options, state: state, restart: opened.value.restart, backend: backend,
            reader: try backend.makeReader(), incarnation: incarnation, generator: generator.split("\(own)"),
            now: clock.now()))
        let driver = ReplicaDriver(identity: identity, replica: replica.value, backend: backend, loop: loop, clock: clock, metrics: metrics,
                                   snapshotDesk: SnapshotDesk(directory: dataDirectory + "/member", disk: environment.disk, logger: logger), logger: logger,
                                   life: generator.next() | 1)
        let backendThread = BackendThread(name: "\(configuration.name)-store", clock: clock, metrics: metrics,
                                          committed: { driver.post(.backendCommitted($0, $1)) }, failed: { fail("the store stopped: \($0)") })
        let disk = environment.disk
        let diskThread = DiskThread(name: "\(configuration.name)-disk", log: opened.value.log, clock: clock, metrics: metrics,
                                    persisted: { driver.post(.persisted($0)) },
                                    // A file that stays is found and removed at the next start.
                                    released: { paths in backendThread.submit(.run { for path in paths { try? disk.remove(path) } }) },
                                    failed: { fail("the log stopped: \($0)") })
        let storeNumber = NIOLockedValueBox(opened.value.storeNumber)

        let peers = PeerTransport(identity: identity, loop: loop, links: environment.links, generator: generator.split("links \(own)"), metrics: metrics, logger: logger,
                                  dialer: tls.dialer, intake: { channel, peer in
            SnapshotIntake(channel: channel, identity: identity, peer: peer, onBackendThread: { backendThread.submit(.run($0)) }, logger: logger, makeBackend: {
                let number = storeNumber.withLockedValue { (number: inout UInt64) -> UInt64 in
                    number += 1
                    return number
                }
                return (try stores.open(number), { stores.remove(number) })
            }, completed: { received, answer in
                Node.install(received, answer, on: driver, stores: stores, backendThread: backendThread, logger: logger)
            })
        }, post: { driver.post($0) })
        let sender = SnapshotSender(identity: identity, loop: loop, links: environment.links, generator: generator.split("snapshots \(own)"), metrics: metrics,
                                    logger: logger, dialer: tls.dialer) { peer, succeeded in
            driver.post(.snapshotSent(to: peer, succeeded: succeeded))
        }
        driver.slowApply = configuration.slowApply
        driver.diskThread = diskThread
        driver.backendThread = backendThread
        driver.sendToPeers = { peers.send($0) }
        peers.note = { [unowned driver] in driver.note($0) }
        driver.sendSnapshot = { [unowned driver] peer in
            guard let address = peers.address(of: peer) else { return driver.post(.snapshotSent(to: peer, succeeded: false)) }
            sender.send(to: address, from: driver.backend)
        }
        driver.observe = environment.observe.map { observe in { observe($0, $1) } }
        driver.fail = { fail($0) }

        let removed = NIOLockedValueBox<(@Sendable () -> Void)?>(nil)
        driver.removed = { removed.withLockedValue { $0 }?() }
        peers.memberList = { [unowned driver] in driver.knownMembers }
        driver.peersChanged = { members in peers.setPeers(addresses(of: members, logger)) }
        var listeners: [ClientListener] = []
        do {
            for (url, tls) in tls.peers {
                do {
                    _ = try await peers.listen(host: url.host, port: url.port, tls: tls, sharesPort: configuration.sharesPorts).get()
                } catch { throw listenError(url, error) }
            }
            let isSplit = !tls.httpClients.isEmpty
            for (ports, surface) in [(tls.clients, isSplit ? .calls : .all), (tls.httpClients, .http), (tls.metrics, .metrics)] as [([NodePorts.Port], ClientSurface)] {
                // Calls are made at the ports before; a port of metrics tells of all.
                let counting = surface == .all ? [] : listeners
                for (url, tls) in ports {
                    do {
                        listeners.append(try await ClientListener.start(port: driver, group: environment.clientGroup, host: url.host, tcpPort: url.port, tls: tls,
                                                                        sharesPort: configuration.sharesPorts, bounds: configuration.clientBounds, auth: auth, surface: surface,
                                                                        access: configuration.http, counting: counting, logger: logger))
                    } catch let error as NodeError { throw error } catch { throw listenError(url, error) }
                }
            }
        } catch {
            for listener in listeners { listener.abort() }
            try? await loop.flatSubmit { peers.close(abruptly: true) }.get()
            environment.interruptDisk()
            diskThread.stop(abandoning: true)
            backendThread.stop(abandoning: true)
            throw error
        }
        let node = Node(identity: identity, configuration: configuration, driver: driver, loop: loop, peers: peers, listeners: listeners,
                        diskThread: diskThread, backendThread: backendThread, snapshots: sender, locks: locks, interruptDisk: environment.interruptDisk,
                        logger: logger)
        failed.withLockedValue { $0 = { [weak node] reason in node?.fail(reason) } }
        removed.withLockedValue { $0 = { [weak node] in node?.leave() } }
        try await loop.submit { [logger] in
            peers.setPeers(addresses(of: driver.peers, logger))
            driver.start()
            node.autoCompaction = AutoCompactionTimer(configuration.autoCompaction, driver: driver, clock: clock, logger: logger)
            // Nobody else could be leader, so there is nothing to wait for.
            if configuration.advancesFirstElection, opened.value.restart.latestConfiguration.voters == [own] { driver.post(.campaign) }
        }.get()
        logger.info("serving", metadata: ["id": "\(own)", "cluster": "\(cluster)", "clients": "\(configuration.listenClientURLs.map(\.description))",
                                          "peers": "\(configuration.listenPeerURLs.map(\.description))", "new": "\(opened.value.isNew)"])
        return node
    }

    /// Whose files they are; nil: nobody's yet.
    private static func look(_ files: MemberFiles, verifying: Bool) throws(NodeError) -> LogIdentity? {
        do {
            try files.checkLogDirectory()
            guard let identity = try WriteAheadLog.identity(directory: files.logDirectory, disk: files.disk) else { return nil }
            if verifying, let problem = try files.inspect().problems.first {
                throw NodeError.dataDirectory("\(files.dataDirectory) is damaged (\(problem.place): \(problem.text)). " + MemberInspection.remedy)
            }
            return identity
        } catch let error as NodeError { throw error } catch { throw .dataDirectory("\(error)") }
    }

    /// A URL that nobody can connect to is left out: the API takes any.
    private static func addresses(of members: [Member], _ logger: Logger) -> [PeerAddress] {
        members.compactMap { member in
            guard let first = member.peerURLs.first else { return nil }
            do throws(NodeError) {
                let url = try NodeURL(parsing: first)
                return PeerAddress(id: member.id, host: url.host, port: url.port, isTLS: url.scheme == "https")
            } catch {
                logger.warning("a peer cannot be reached", metadata: ["peer": "\(member.id)", "reason": "\(error)"])
                return nil
            }
        }
    }

    private static func listenError(_ url: NodeURL, _ error: any Error) -> NodeError {
        if let error = error as? IOError, error.errnoCode == EADDRINUSE { return .portInUse(url.authority) }
        return .listen(url.authority, reason: "\(error)")
    }

    private init(identity: NodeIdentity, configuration: NodeConfiguration, driver: ReplicaDriver, loop: any EventLoop, peers: PeerTransport,
                 listeners: [ClientListener], diskThread: DiskThread, backendThread: BackendThread, snapshots: SnapshotSender, locks: [DirectoryLock],
                 interruptDisk: @escaping @Sendable () -> Void, logger: Logger) {
        self.identity = identity
        self.configuration = configuration
        self.driver = driver
        self.loop = loop
        self.peers = peers
        self.listeners = listeners
        self.diskThread = diskThread
        self.backendThread = backendThread
        self.snapshots = snapshots
        self.locks = locks
        self.interruptDisk = interruptDisk
        self.logger = logger
        endedPromise = loop.makePromise()
        ended = endedPromise.futureResult
    }

    // MARK: Reading

    /// The member's latest picture of itself; nil before its first turn.
    public var status: ReplicaStatus? { driver.published }

    // MARK: Ending

    /// How long a clean stop waits for the disk. What it has not written then is lost, as in a kill; the log has all that was acknowledged.
    private static let diskPatience = TimeSpan.seconds(3)

    /// Hands leadership over, lets requests finish, writes what is left and closes.
    /// - Parameter handingOver: false when the whole cluster stops, so that nobody waits for an heir.
    public func stop(handingOver: Bool = true) async { await stop(handingOver: handingOver, because: nil) }

    /// The member was removed: its files say so durably before it ends.
    private func leave() { Task { await stop(handingOver: false, because: .removed) } }

    private func stop(handingOver: Bool, because reason: NodeError?) async {
        guard begin(.stopping) else { return _ = try? await ended.get() }
        if handingOver, let raft = status?.raft, raft.configuration.voters.count > 1 { await handOver() }
        for listener in listeners { await listener.close() }
        snapshots.stop()
        try? await loop.flatSubmit { self.peers.close(abruptly: false) }.get()
        let patience = Task { [interruptDisk] in
            try await Task.sleep(for: .nanoseconds(Node.diskPatience.nanoseconds))
            interruptDisk()
        }
        defer { patience.cancel() }
        let commit = try? await withIdleBackend { $0.takeFinalCommit() }.get()
        try? await loop.submit {
            self.autoCompaction?.stop()
            self.driver.stop()
        }.get()
        if let commit { backendThread.submit(.commit(commit, driver.backend)) }
        await offLoop {
            self.driver.snapshotDesk?.stop()
            self.diskThread.stop(abandoning: false)
            self.backendThread.stop(abandoning: false)
        }
        try? await loop.submit { self.driver.dismantle() }.get()
        end(reason)
    }

    /// As SIGKILL would: nothing is flushed, connections are reset. Returns when the ports are free.
    public func kill() async {
        guard begin(.stopping) else { return _ = try? await ended.get() }
        await abandon()
        end(nil)
    }

    private func abandon() async {
        for listener in listeners { try? await listener.abort().get() }
        snapshots.stop()
        interruptDisk()
        try? await loop.submit {
            self.autoCompaction?.stop()
            self.driver.stop()
        }.get()
        try? await loop.flatSubmit { self.peers.close(abruptly: true) }.get()
        await offLoop {
            self.driver.snapshotDesk?.stop()
            self.diskThread.stop(abandoning: true)
            self.backendThread.stop(abandoning: true)
        }
        try? await loop.submit { self.driver.dismantle() }.get()
    }

    /// The disk failed or the machine cannot go on: no acknowledgement, vote or read leaves this member any more.
    private func fail(_ reason: String) {
        guard begin(.stopping) else { return }
        logger.critical("the node stops", metadata: ["reason": "\(reason)"])
        Task {
            await abandon()
            end(.stopped(reason))
        }
    }

    private func begin(_ next: Phase) -> Bool {
        phase.withLockedValue { phase in
            guard phase == .running else { return false }
            phase = next
            return true
        }
    }

    private func end(_ error: NodeError?) {
        phase.withLockedValue { $0 = .stopped }
        endedPromise.succeed(error)
    }

    /// Gives leadership away; goes on when another member leads or after an election timeout.
    private func handOver() async {
        driver.post(.resign)
        guard await wait(upTo: identity.options.raft.electionTimeout, until: { !$0.isLeader }) else {
            return logger.warning("no other member took over leadership in time", metadata: ["member": "\(identity.member)"])
        }
    }

    /// False if the time was up first.
    private func wait(upTo span: TimeSpan, until condition: @escaping @Sendable (ReplicaDriver) -> Bool) async -> Bool {
        let promise = loop.makePromise(of: Bool.self)
        loop.execute {
            let end = NIODeadline.now() + .nanoseconds(span.nanoseconds)
            let timeUp = self.loop.scheduleTask(deadline: end) { promise.succeed(false) }
            self.driver.afterEachTurn { driver in
                guard condition(driver) else { return NIODeadline.now() >= end }
                timeUp.cancel()
                promise.succeed(true)
                return true
            }
        }
        return (try? await promise.futureResult.get()) ?? false
    }

    /// nil: a commit is in flight that does not end.
    private func withIdleBackend<T: Sendable>(_ body: @escaping @Sendable (ReplicaDriver) -> T?) -> EventLoopFuture<T?> {
        let promise = loop.makePromise(of: T?.self)
        loop.execute {
            let timeout = self.loop.scheduleTask(in: .nanoseconds(Node.diskPatience.nanoseconds)) { promise.succeed(nil) }
            self.driver.whenNoCommitIsInFlight {
                timeout.cancel()
                promise.succeed(body($0))
            }
        }
        return promise.futureResult
    }

    private func offLoop(_ body: @escaping @Sendable () -> Void) async { _ = try? await onOwnThread("\(identity.name)-end", body) }

    /// Hands leadership of this node to `target` and returns when it leads.
    public func moveLeader(to target: MemberID) async throws(ServiceError) {
        guard identity.options.raft.electionTimeout > .zero, status?.raft.configuration.isVoter(target) == true else { throw .badLeaderTransferee }
        guard status?.raft.role == .leader else { throw .notLeader }
        if target == identity.member { return }
        driver.post(.transferLeadership(to: target))
        guard await wait(upTo: identity.options.raft.electionTimeout * 2, until: { $0.leader == target }) else { throw .leaderTransferTimeout }
    }

    /// Changes who belongs to the cluster. Returns the members after the change.
    @discardableResult
    public func changeMembership(_ request: MembershipRequest) async throws(ServiceError) -> [Member] {
        let answer = try? await driver.ask(.changeMembership(request)).get()
        switch answer {
        case .membershipChanged(_, let members): return members
        case .failed(let error): throw error
        default: throw .stopped
        }
    }

    // MARK: Faults, for the playground

    /// Stands still as under SIGSTOP: connections stay open, nothing is read, answered or ticked.
    public func setPaused(_ paused: Bool) async {
        for listener in listeners { listener.setPaused(paused) }
        try? await loop.submit {
            self.peers.setPaused(paused)
            self.driver.setPaused(paused)
        }.get()
    }

    // MARK: Snapshots from the leader

    private static func loadSnapshot(_ received: SnapshotIntake.Received, stores: StoreDirectory,
                                     logger: Logger) -> UncheckedBox<(ReplicaState, any BackendReader)>? {
        do {
            return UncheckedBox(try stores.adopt(received.backend))
        } catch {
            logger.error("snapshot cannot be used", metadata: ["reason": "\(error)"])
            return nil
        }
    }

    /// A whole snapshot has arrived in a file of its own: loads it, and when the member still wants it, switches over. On the
    /// replica loop.
    private static func install(_ received: SnapshotIntake.Received, _ answer: @escaping (Bool) -> Void, on driver: ReplicaDriver, stores: StoreDirectory,
                                backendThread: BackendThread, logger: Logger) {
        let answer = UncheckedBox(answer)
        guard driver.wants(received.metadata) else {
            received.discard()
            return answer.value(false)
        }
        backendThread.submit(.run {
            let loaded = loadSnapshot(received, stores: stores, logger: logger)
            driver.loop.execute {
                driver.whenNoCommitIsInFlight { driver in
                    guard let (state, reader) = loaded?.value, driver.wants(received.metadata) else {
                        received.discard()
                        return answer.value(false)
                    }
                    driver.install(received.metadata, from: received.from, state: state, backend: received.backend, reader: reader)
                    answer.value(true)
                }
            }
        })
    }
}
