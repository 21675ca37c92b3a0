import Base
import Log
import Logging
import NIOConcurrencyHelpers
import NIOCore
import Raft
import Replica
import Store

/// Runs one member's machine on its event loop: collects events, carries out effects, keeps the one timer.
///
/// Everything but the mailbox and what is under a lock is confined to `loop`, hence @unchecked Sendable.
final class ReplicaDriver: ReplicaPort, @unchecked Sendable {
    let identity: NodeIdentity
    let metrics: NodeMetrics
    let snapshotDesk: SnapshotDesk?
    let loop: any EventLoop
    private let clock: any NodeClock
    private let logger: Logger
    private let replica: Replica
    private var effects = ReplicaEffects()
    private var timer: Scheduled<Void>?
    private var timerDeadline = Instant.distantFuture
    private var isTurnScheduled = false
    private var ports: [(any ClientLoopPort)?] = []
    private var deliveries: [ReplicaDelivery] = []
    private var isPaused = false
    private var isStopped = false

    private struct Mailbox {
        var events: [ReplicaEvent] = []
        var arrivals: [RequestArrival] = []
        var isTurnDue = false
    }
    private let mailbox = NIOLockedValueBox(Mailbox())
    private let publishedStatus = NIOLockedValueBox<ReplicaStatus?>(nil)
    private var spareEvents: [ReplicaEvent] = []

    // For observers.
    private var desk: ObserverDesk
    private var meter = StageMeter()
    /// What the transport saw while the node stood still.
    private var pausedNotes: [ReplicaNote] = []

    // Where effects go. Set before `start`.
    var diskThread: DiskThread!
    var backendThread: BackendThread!
    var backend: any Backend
    var sendToPeers: (([PeerMessage]) -> Void)!
    var sendSnapshot: ((MemberID) -> Void)!
    /// A turn that applies something may take so long.
    var slowApply = TimeSpan.milliseconds(100)
    private var lastSlowApplyTold: Instant?
    /// Called on the loop for each note, with the time at which it happened.
    var observe: ((ReplicaNote, WallTime) -> Void)?
    /// Called on the loop once: the member cannot go on.
    var fail: ((String) -> Void)!
    /// Called on the loop once: the member is not part of the cluster any more, and has said so to whoever waits.
    var removed: () -> Void = {}
    /// Called on the loop with whom the member talks to, after each change.
    var peersChanged: ([Member]) -> Void = { _ in }
    /// Requests of this process itself, by the slot of their token.
    private var localRequests: [UInt64: EventLoopPromise<Answer>] = [:]
    private var nextLocalRequest: UInt64 = 1
    /// No client loop has this number.
    private static let localLoop: UInt8 = 255
    /// Waits for the backend commit in flight, then runs once on the loop.
    private var whenBackendIdle: [(ReplicaDriver) -> Void] = []
    /// Asked after each turn until they say true.
    private var waitingForTurn: [(ReplicaDriver) -> Bool] = []

    init(identity: NodeIdentity, replica: Replica, backend: any Backend, loop: any EventLoop, clock: any NodeClock, metrics: NodeMetrics,
         snapshotDesk: SnapshotDesk?, logger: Logger, life: UInt64) {
        self.identity = identity
        self.snapshotDesk = snapshotDesk
        self.replica = replica
        self.backend = backend
        self.loop = loop
        self.clock = clock
        self.metrics = metrics
        self.logger = logger
        desk = ObserverDesk(life: life, membership: replica.memberList)
    }

    // MARK: Any thread

    var published: ReplicaStatus? { publishedStatus.withLockedValue { $0 } }

    func post(_ events: [ReplicaEvent], _ arrival: RequestArrival? = nil) {
        let wakes = mailbox.withLockedValue { box in
            box.events.append(contentsOf: events)
            if let arrival { box.arrivals.append(arrival) }
            defer { box.isTurnDue = true }
            return !box.isTurnDue
        }
        if wakes { loop.execute { self.turn() } }
    }

    func post(_ event: ReplicaEvent) {
        let wakes = mailbox.withLockedValue { box in
            box.events.append(event)
            defer { box.isTurnDue = true }
            return !box.isTurnDue
        }
        if wakes { loop.execute { self.turn() } }
    }

    func attach(_ port: any ClientLoopPort) {
        onLoop { driver in
            while driver.ports.count <= Int(port.number) {
                driver.ports.append(nil)
                driver.deliveries.append(ReplicaDelivery())
            }
            driver.ports[Int(port.number)] = port
        }
    }

    func detach(_ port: any ClientLoopPort) {
        onLoop { driver in
            if driver.ports.indices.contains(Int(port.number)) { driver.ports[Int(port.number)] = nil }
            driver.desk.remove(port.number)
            driver.metrics.stages.setOn(driver.desk.isObserved)
        }
    }

    func setObserving(_ port: any ClientLoopPort, _ isObserving: Bool) {
        onLoop { driver in
            if isObserving { driver.desk.add(port.number) } else { driver.desk.remove(port.number) }
            driver.metrics.stages.setOn(driver.desk.isObserved)
            if isObserving { driver.scheduleTurn() }
        }
    }

    /// Asks the member from inside this process.
    func ask(_ request: Request) -> EventLoopFuture<Answer> {
        let promise = loop.makePromise(of: Answer.self)
        onLoop { driver in
            guard !driver.isStopped else { return promise.succeed(.failed(.stopped)) }
            let slot = driver.nextLocalRequest
            driver.nextLocalRequest += 1
            driver.localRequests[slot] = promise
            driver.post(.request(RequestToken(loop: ReplicaDriver.localLoop, slot: slot), request, requiresLeader: false))
        }
        return promise.futureResult
    }

    private func onLoop(_ body: @escaping @Sendable (ReplicaDriver) -> Void) {
        if loop.inEventLoop { body(self) } else { loop.execute { body(self) } }
    }

    // MARK: The loop

    func start() {
        loop.preconditionInEventLoop()
        clock.observe { [weak self] in
            guard let self else { return }
            self.loop.execute { self.clockChanged() }
        }
        turn()
    }

    private func clockChanged() {
        guard !isStopped else { return }
        timer?.cancel()
        timer = nil
        timerDeadline = .distantFuture
        turn()
    }

    /// One batch: everything that waits goes in, everything that came of it goes out.
    private func turn() {
        let (events, arrivals) = mailbox.withLockedValue { box in
            box.isTurnDue = false
            if isPaused || isStopped { return ([ReplicaEvent](), [RequestArrival]()) }
            let batch = (box.events, box.arrivals)
            box.events = spareEvents
            if !box.arrivals.isEmpty { box.arrivals.removeAll(keepingCapacity: true) }
            return batch
        }
        guard !isPaused, !isStopped else { return }
        let now = clock.now()
        let wall = clock.wall()
        let start = metrics.stages.now()
        if let start { meterArrivals(arrivals, events, at: start) }
        let appliedBefore = replica.progress.applied
        let began = SystemClock().now()
        for event in events { replica.handle(event, at: now, wall: wall, into: &effects) }
        if replica.nextDeadline <= now { replica.handle(.timer, at: now, wall: wall, into: &effects) }
        replica.flush(at: now, wall: wall, into: &effects)
        noteSlowApply(since: began, from: appliedBefore)
        var isBusy = false
        if replica.hasBackgroundWork {
            replica.work(at: now, into: &effects)
            isBusy = replica.hasBackgroundWork
        }
        // The events' payloads are released here, off the other threads; the array is used again.
        spareEvents = events
        spareEvents.removeAll(keepingCapacity: true)
        if let start { meter.sends(effects.messages, at: start) }
        carryOut(at: now, wall: wall)
        if let start { meter.handled(replica.progress, from: start, to: SystemClock().now(), into: metrics.stages) }
        tellObservers(at: now)
        publish(at: now)
        arm(now: now)
        if !whenBackendIdle.isEmpty && !replica.isCommittingBackend {
            let waiting = whenBackendIdle
            whenBackendIdle = []
            for body in waiting { body(self) }
        }
        if !waitingForTurn.isEmpty { waitingForTurn.removeAll { $0(self) } }
        if isBusy { scheduleTurn() }
    }

    /// The machine has no clock, and what else is in a turn is little: its time stands for that of applying.
    private func noteSlowApply(since began: Instant, from before: LogIndex) {
        let applied = replica.progress.applied
        guard applied > before else { return }
        let now = SystemClock().now()
        guard now - began > slowApply else { return }
        metrics.slowApplies.add(1, ordering: .relaxed)
        // A member that is always slow would have nothing else in its log.
        if let last = lastSlowApplyTold, now < last + .seconds(1) { return }
        lastSlowApplyTold = now
        logger.warning("applying took too long", metadata: [
            "took": "\((now - began).milliseconds)ms", "expected-duration": "\(slowApply.milliseconds)ms", "entries": "\(before.distance(to: applied))",
        ])
    }

    private func scheduleTurn() {
        let wakes = mailbox.withLockedValue { box in
            defer { box.isTurnDue = true }
            return !box.isTurnDue
        }
        if wakes { loop.execute { self.turn() } }
    }

    private func carryOut(at now: Instant, wall: WallTime) {
        // Before anything leaves: what a peer does about a message comes after what this member says of sending it.
        let stamp = effects.notes.isEmpty ? 0 : clock.wallMicroseconds()
        for batch in effects.persist { diskThread.submit(.persist(batch)) }
        if !effects.messages.isEmpty { sendToPeers(effects.messages) }
        for commit in effects.backendCommits { backendThread.submit(.commit(commit, backend)) }
        if let index = effects.compactLog { diskThread.submit(.compact(upTo: index)) }
        for peer in effects.snapshots { sendSnapshot(peer) }
        deliver()
        for note in effects.notes {
            take(note, at: now, wall: wall, wallMicroseconds: stamp)
            switch note {
            case .cannotApply(let index, let reason):
                fail("entry \(index.rawValue) of the log cannot be applied (\(reason)); a newer version may be able to")
            case .diverged(let divergence): fail(divergence.description)
            case .membershipChanged: peersChanged(replica.peers)
            case .removed: removed()
            default: break
            }
        }
        effects.removeAll()
    }

    private func take(_ note: ReplicaNote, at now: Instant, wall: WallTime, wallMicroseconds: Int64) {
        log(note)
        desk.take(note, term: replica.term, isLearner: replica.isLearner, at: now, wallMicroseconds: wallMicroseconds)
        observe?(note, wall)
    }

    /// News of the transport's. On the loop.
    func note(_ note: ReplicaNote) {
        loop.preconditionInEventLoop()
        guard !isStopped else { return }
        guard !isPaused else { return pausedNotes.append(note) }
        take(note, at: clock.now(), wall: clock.wall(), wallMicroseconds: clock.wallMicroseconds())
        if desk.isObserved { scheduleTurn() }
    }

    private func meterArrivals(_ arrivals: [RequestArrival], _ events: [ReplicaEvent], at start: Instant) {
        for arrival in arrivals { metrics.stages.record(.queue, start - arrival.since, count: arrival.requests) }
        for event in events {
            guard case .peer(let message) = event, case .raft(let raft) = message.body, case .appendAccepted(let match) = raft.body else { continue }
            meter.accepted(match, from: message.from, at: start, into: metrics.stages)
        }
    }

    /// One hop for each client loop with observers, when there is something to tell.
    private func tellObservers(at now: Instant) {
        guard desk.isObserved else { return }
        let all = desk.news(replica.progress, at: now, wallMicroseconds: clock.wallMicroseconds(), stages: metrics.stages) { replica.status() }
        for (number, news) in all {
            guard ports.indices.contains(Int(number)), let port = ports[Int(number)] else { continue }
            var delivery = ReplicaDelivery()
            delivery.observed = news
            port.eventLoop.execute { [delivery] in port.deliver(delivery) }
        }
    }

    /// One hop per client loop and turn.
    private func deliver() {
        guard !(effects.answers.isEmpty && effects.grants.isEmpty && effects.watch.isEmpty && effects.leaderlessStreams.isEmpty) else { return }
        for (token, answer) in effects.answers where token.loop == ReplicaDriver.localLoop {
            localRequests.removeValue(forKey: token.slot)?.succeed(answer)
        }
        for (token, answer) in effects.answers where deliveries.indices.contains(Int(token.loop)) {
            deliveries[Int(token.loop)].answers.append((token, answer))
        }
        for grant in effects.grants {
            if ports.count == 1 {
                deliveries[0].grants.append(grant)
                continue
            }
            for loop in deliveries.indices {
                let tokens = grant.tokens.filter { Int($0.loop) == loop }
                guard !tokens.isEmpty else { continue }
                deliveries[loop].grants.append(ReadGrant(tokens: tokens, callers: grant.callers, auth: grant.auth, snapshot: grant.snapshot,
                                                           backend: grant.backend, term: grant.term))
            }
        }
        for output in effects.watch where deliveries.indices.contains(Int(output.stream.loop)) {
            deliveries[Int(output.stream.loop)].watch.append(output)
        }
        for stream in effects.leaderlessStreams where deliveries.indices.contains(Int(stream.loop)) {
            deliveries[Int(stream.loop)].leaderlessStreams.append(stream)
        }
        for number in deliveries.indices where !deliveries[number].isEmpty {
            var delivery = deliveries[number]
            deliveries[number] = ReplicaDelivery()
            delivery.revision = replica.revision
            guard let port = ports[number] else { continue }
            port.eventLoop.execute { [delivery] in port.deliver(delivery) }
        }
    }

    /// Keeps one timer. It is only set anew when the machine wants to be woken earlier, so a busy loop sets none.
    private func arm(now: Instant) {
        var deadline = min(replica.nextDeadline, desk.deadline)
        if isPublishDue { deadline = min(deadline, lastPublished + ReplicaDriver.publishInterval) }
        guard deadline < timerDeadline || timer == nil, deadline < .distantFuture else { return }
        timer?.cancel()
        timerDeadline = deadline
        let delay = max(0, clock.realTime(for: deadline - now).nanoseconds)
        timer = loop.scheduleTask(in: .nanoseconds(delay)) { [self] in
            timer = nil
            timerDeadline = .distantFuture
            turn()
        }
    }

    private var lastPublished = Instant.zero
    private var isPublishDue = false
    private var publishesAtOnce = true
    /// The last that went into the metrics, of each peer.
    private var measuredRoundTrips: [MemberID: TimeSpan] = [:]
    /// Must stay the last stored property.
    let remains = Remains()
    /// Between two pictures, unless something changed that people wait for: taking one costs a few microseconds.
    private static let publishInterval = TimeSpan.milliseconds(20)

    private func publish(at now: Instant) {
        guard publishesAtOnce || now - lastPublished >= ReplicaDriver.publishInterval else {
            isPublishDue = true
            return
        }
        lastPublished = now
        isPublishDue = false
        publishesAtOnce = false
        let status = replica.status()
        publishedStatus.withLockedValue { $0 = status }
        for peer in status.raft.peers {
            guard let roundTrip = peer.roundTrip, measuredRoundTrips.updateValue(roundTrip, forKey: peer.id) != roundTrip else { continue }
            metrics.peer(peer.id).roundTrip.record(nanoseconds: roundTrip.nanoseconds)
        }
    }

    private func log(_ note: ReplicaNote) {
        switch note {
        case .raft(let note):
            switch note {
            case .roleChanged, .leaderChanged, .elected, .steppedDown: publishesAtOnce = true
            default: break
            }
            let (level, text) = Self.describe(note)
            logger.log(level: level, "\(text)", metadata: ["term": "\(replica.term.rawValue)"])
        case .membershipChanged(let membership):
            publishesAtOnce = true
            logger.info("membership changed", metadata: ["members": "\(membership.members.map { "\($0.id) \($0.name)" })"])
        case .authSwitched(let isEnabled): logger.notice("authentication \(isEnabled ? "enabled" : "disabled")")
        case .alarmsChanged(let alarms):
            // `/health` goes by it.
            publishesAtOnce = true
            logger.warning("alarms changed", metadata: ["alarms": "\(alarms)"])
        case .compacted(let revision): logger.info("compacted", metadata: ["revision": "\(revision.rawValue)"])
        case .leaseExpired(let lease, let keys): logger.debug("lease expired", metadata: ["lease": "\(String(lease.rawValue, radix: 16))", "keys": "\(keys)"])
        case .snapshotSent(let peer, let succeeded):
            logger.log(level: succeeded ? .info : .warning, "\(succeeded ? "snapshot sent" : "a snapshot did not get through")", metadata: ["peer": "\(peer)"])
        case .peerLost(let peer): logger.info("connection to a peer lost", metadata: ["peer": "\(peer)"])
        case .peerFound(let peer): logger.info("connected to a peer", metadata: ["peer": "\(peer)"])
        case .snapshotInstalled(let position): logger.info("snapshot installed", metadata: ["index": "\(position.index.rawValue)"])
        case .statesDiffer(let index):
            logger.error("the members' states differ and no majority agrees: the CORRUPT alarm is raised", metadata: ["index": "\(index.rawValue)"])
        case .removed:
            logger.warning("the member has been permanently removed from the cluster")
            logger.warning("the data-dir used by this member must be removed")
        case .cannotApply, .diverged: break
        }
    }

    private static func describe(_ note: RaftNote) -> (Logger.Level, String) {
        switch note {
        case .roleChanged(let role, let term, let leader): (.info, "became \(role) in term \(term.rawValue), leader \(leader)")
        case .leaderChanged(let leader, let term):
            (.info, leader == .none ? "lost the leader of term \(term.rawValue)" : "\(leader) leads term \(term.rawValue)")
        case .electionTimeout(let after): (.info, "no leader heard of for \(after.milliseconds) ms")
        case .leaderConnectionLost(let leader, let term): (.info, "leader \(leader) of term \(term.rawValue) is gone: its connections closed, a new one was refused")
        case .preVoteAsked(let term): (.info, "asking for pre-votes of term \(term.rawValue)")
        case .voteAsked(let term): (.info, "asking for votes of term \(term.rawValue)")
        case .voteCast(let candidate, let term, let isPreVote): (.info, "\(isPreVote ? "pre-vote" : "vote") for \(candidate) in term \(term.rawValue)")
        case .voteRefused(let candidate, let term, let isPreVote, let reason):
            (.info, "\(isPreVote ? "pre-vote" : "vote") refused to \(candidate) in term \(term.rawValue): \(reason)")
        case .voteReceived(let voter, let granted, let isPreVote, let term):
            (.debug, "\(voter) \(granted ? "granted" : "refused") its \(isPreVote ? "pre-vote" : "vote") of term \(term.rawValue)")
        case .elected(let term, let votes, let voters): (.info, "elected in term \(term.rawValue) by \(votes) of \(voters)")
        case .steppedDown(let term, let reason): (.warning, "stepped down from term \(term.rawValue): \(reason)")
        case .firstCommit(let term, let index): (.info, "first commit of term \(term.rawValue) at entry \(index.rawValue)")
        case .configurationChanged(let configuration): (.info, "voters \(configuration.voters), learners \(configuration.learners)")
        case .transferStarted(let heir): (.info, "handing leadership to \(heir)")
        case .transferAborted(let heir): (.warning, "\(heir) did not take leadership over")
        case .diskStuck(let after): (.warning, "the log's disk has not finished a write for \(after.milliseconds) ms")
        case .diskRecovered(let after): (.warning, "the log's disk finished a write after \(after.milliseconds) ms")
        case .peerForgot(let peer, let acknowledged, let has):
            (.error, "\(peer) acknowledged entry \(acknowledged.rawValue) and has only \(has.rawValue): its disk lost data or is an old one; it is brought up to date, but check that disk, and replace the member if it is not sound")
        case .messageRefused(let peer, let fault): (.warning, "a message from \(peer) was ignored: \(fault)")
        case .snapshotNeeded(let peer): (.info, "\(peer) is behind the log and gets a snapshot")
        }
    }

    // MARK: Control (on the loop)

    /// Stands still as a stopped process does: nothing is handled, no timer runs. What arrives waits.
    func setPaused(_ paused: Bool) {
        loop.preconditionInEventLoop()
        guard paused != isPaused else { return }
        isPaused = paused
        guard !paused else { return }
        let notes = pausedNotes
        pausedNotes = []
        for note in notes { self.note(note) }
        turn()
    }

    /// Nothing is handled any more.
    func stop() {
        loop.preconditionInEventLoop()
        isStopped = true
        for (_, promise) in localRequests { promise.succeed(.failed(.stopped)) }
        localRequests = [:]
        timer?.cancel()
        timer = nil
        ports = []
        deliveries = []
    }

    /// Lets go of everything around the machine, after `stop` and after the threads have ended: they and the peers know the driver, and
    /// files must close with the last user, so that the same process can open them again.
    func dismantle() {
        loop.preconditionInEventLoop()
        precondition(isStopped, "a running driver needs its parts")
        sendToPeers = { _ in }
        sendSnapshot = { _ in }
        observe = nil
        fail = { _ in }
        removed = {}
        peersChanged = { _ in }
        whenBackendIdle = []
        waitingForTurn = []
        effects = ReplicaEffects()
        diskThread = nil
        backendThread = nil
        mailbox.withLockedValue { $0.events = [] }
    }

    var isLeader: Bool { replica.isLeader }
    var revision: Revision { replica.revision }
    var leader: MemberID { replica.leader }
    /// The members as this one knows them: the table, or what it was told when it joined.
    var knownMembers: [Member] { replica.knownMembers }
    var peers: [Member] { replica.peers }
    func takeFinalCommit() -> BackendCommit? { replica.isCommittingBackend ? nil : replica.finalCommit() }

    func whenNoCommitIsInFlight(_ body: @escaping (ReplicaDriver) -> Void) {
        loop.preconditionInEventLoop()
        if replica.isCommittingBackend { whenBackendIdle.append(body) } else { body(self) }
    }

    /// Asks `isDone` now and after each turn until it is true.
    func afterEachTurn(_ isDone: @escaping (ReplicaDriver) -> Bool) {
        loop.preconditionInEventLoop()
        if !isDone(self) { waitingForTurn.append(isDone) }
    }

    func wants(_ snapshot: SnapshotMetadata) -> Bool { replica.wants(snapshot) }

    /// On the loop, with no commit in flight.
    func install(_ snapshot: SnapshotMetadata, from peer: MemberID, state: ReplicaState, backend: any Backend,
                 reader: any BackendReader) {
        self.backend = backend
        replica.install(snapshot, from: peer, state: state, backend: backend, reader: reader, at: clock.now(), wall: clock.wall(), into: &effects)
        scheduleTurn()
    }
}
