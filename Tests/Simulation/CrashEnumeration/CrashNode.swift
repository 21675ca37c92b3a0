import Base
import Log
import Raft
import Replica
import Store

/// One member of a `CrashCluster`: its files, its machine when it runs, and what its threads have still to do.
final class CrashNode {
    static let dataDirectory = "/var/data"

    enum StoreJob {
        case commit(BackendCommit, any Backend)
        case removeFiles([String])
        case receive(SnapshotPiece, from: MemberID)
        case adopt(SnapshotMetadata, number: UInt64, any Backend, from: MemberID)
    }

    /// What the member has told others, and may never be without again.
    struct Promises {
        /// It led, campaigned, voted or acknowledged in this term.
        var term = Term.zero
        /// Its vote in that term, if it said it.
        var vote = MemberID.none
        /// It said that its disk holds the log up to here.
        var held = LogPosition.zero
        /// Its store has reached this entry, durably.
        var stored = LogIndex.zero

        mutating func note(_ message: PeerMessage, _ history: ReferenceHistory) {
            guard case .raft(let message) = message.body else { return }
            switch message.body {
            // Asking for votes promises nothing: without its own on disk it is not elected.
            case .voteReply(let granted, let isPreVote, _) where granted && !isPreVote: note(message.term, vote: message.to)
            case .append, .heartbeat: note(message.term, vote: message.from)
            case .appendAccepted(let match):
                note(message.term, vote: nil)
                if let term = history.term(at: match) { held = LogPosition(index: match, term: term) }
            default: break
            }
        }
        private mutating func note(_ told: Term, vote: MemberID?) {
            guard told >= term else { return }
            if told > term { self.vote = .none }
            term = told
            if let vote { self.vote = vote }
        }
    }

    let id: MemberID
    let disk: MemoryDisk
    let stores: SimulatedStores
    var promises: Promises
    /// Whom it joins when its files are empty; nil for a founder.
    let contacts: [Member]?

    private(set) var replica: Replica?
    private var log: WriteAheadLog?
    var backend: any Backend
    private(set) var opened: MemberFiles.Opened?
    private var lastStoreNumber: UInt64 = 0
    /// Why it stopped; nil while it may run.
    private(set) var failure: String?

    /// The hash of its state was compared up to here.
    var checkedThrough = LogIndex.zero
    /// It has learned that it was removed from the cluster.
    var isRemoved = false
    var inbox: [ReplicaEvent] = []
    var isBusy = false
    var logJobs: [LogJob] = []
    var storeJobs: [StoreJob] = []
    private var intake: (assembly: SnapshotAssembly, number: UInt64, from: MemberID)?
    var adopted: (metadata: SnapshotMetadata, number: UInt64, backend: any Backend, state: ReplicaState, reader: any BackendReader, from: MemberID)?
    var answers: [RequestToken: Answer] = [:]
    var grants: [RequestToken: ReadGrant] = [:]
    private var violations: [Violation] = []

    init(_ id: MemberID, _ disk: MemoryDisk, _ stores: SimulatedStores, _ promises: Promises, contacts: [Member]?) {
        self.id = id
        self.disk = disk
        self.stores = stores
        self.promises = promises
        self.contacts = contacts
        backend = MemoryBackend()
    }

    var isRunning: Bool { replica != nil && failure == nil }
    func takeViolations() -> [Violation] {
        defer { violations.removeAll() }
        return violations
    }

    func start(_ opened: MemberFiles.Opened, _ setup: CrashCluster.Setup, incarnation: UInt32, at now: Instant) {
        self.opened = opened
        log = opened.log
        backend = opened.backend
        lastStoreNumber = opened.storeNumber
        checkedThrough = opened.state.applied.index
        failure = nil
        var options = setup.options
        options.name = "m\(id)"
        options.clientURLs = ["http://c\(id)"]
        do {
            replica = Replica(id: id, cluster: setup.cluster, options: options, state: opened.state, restart: opened.restart, backend: opened.backend,
                              reader: try opened.backend.makeReader(), incarnation: incarnation,
                              generator: SeededGenerator(seed: id.rawValue << 32 | UInt64(incarnation)), now: now)
        } catch { stop("the store cannot be read: \(error)") }
    }

    /// The process is over, and everything that it had not begun to write with it.
    func stop(_ reason: String? = nil) {
        failure = reason
        replica = nil
        log?.close()
        log = nil
        opened = nil
        inbox = []
        isBusy = false
        logJobs = []
        storeJobs = []
        intake = nil
        adopted = nil
        answers = [:]
        grants = [:]
    }

    func fail(_ reason: String) { if failure == nil { stop(reason) } }

    // MARK: The threads' work

    /// Group commit: everything that waits.
    func doLogJobs() {
        guard let log else { return }
        let jobs = logJobs
        logJobs = []
        do throws(LogError) {
            if let ticket = try log.write(jobs) { inbox.append(.persisted(ticket)) }
            let paths = try log.release(jobs)
            if !paths.isEmpty { storeJobs.append(.removeFiles(paths)) }
        } catch {
            refusesAfterFailure(log)
            stop("the log stopped: \(error)")
        }
    }

    /// A log that failed once must never report anything durable again, even if the disk works again.
    private func refusesAfterFailure(_ log: WriteAheadLog) {
        let calls = disk.calls
        do throws(LogError) {
            _ = try log.write([.persist(PersistBatch(ticket: PersistTicket(0), hardState: log.hardState))])
        } catch {
            if error == .stopped, disk.calls == calls { return }
        }
        violations.append(Violation("failed-sync-is-final", "member \(id)'s log went on after a failure, with \(disk.calls - calls) calls"))
    }

    /// The store thread's next job.
    func doStoreJob(_ setup: CrashCluster.Setup) {
        switch storeJobs.removeFirst() {
        case .commit(let commit, let backend):
            do throws(BackendError) {
                try backend.commit(commit.batch)
            } catch { return stop("the store stopped: \(error)") }
            // A snapshot may have replaced the store meanwhile.
            if backend === self.backend, let position = try? ReplicaState.position(in: try backend.makeReader()) {
                promises.stored = max(promises.stored, position.position.index)
            }
            inbox.append(.backendCommitted(commit.token, backend.size))
        case .removeFiles(let paths):
            // A file that stays is found and removed at the next start.
            for path in paths { try? disk.remove(path) }
        case .receive(let piece, let sender): receive(piece, from: sender)
        case .adopt(let metadata, let number, let backend, let sender):
            do {
                let (state, reader) = try stores.adopt(backend)
                adopted = (metadata, number, backend, state, reader, sender)
                // A turn, so that it is taken up.
                isBusy = true
            } catch {
                stores.remove(number)
                abandon(from: sender)
            }
        }
    }

    private func receive(_ piece: SnapshotPiece, from sender: MemberID) {
        do {
            if piece.kind == .begin {
                if let intake { stores.remove(intake.number) }
                intake = nil
                lastStoreNumber += 1
                intake = (SnapshotAssembly(into: try stores.open(lastStoreNumber)), lastStoreNumber, sender)
                return
            }
            // The rest of a stream that was given up.
            guard intake != nil else { return }
            guard let metadata = try intake!.assembly.take(piece) else { return }
            let whole = intake!
            intake = nil
            storeJobs.append(.adopt(metadata, number: whole.number, whole.assembly.backend, from: sender))
        } catch {
            if let intake { stores.remove(intake.number) }
            intake = nil
            abandon(from: sender)
        }
    }

    /// The sender learns from the closed connection that its snapshot did not arrive.
    private(set) var refusedSnapshots: [MemberID] = []
    private func abandon(from sender: MemberID) { refusedSnapshots.append(sender) }
    func takeRefusedSnapshots() -> [MemberID] {
        defer { refusedSnapshots.removeAll() }
        return refusedSnapshots
    }

    // MARK: What a running member may never be

    /// compact <= snapshot <= applied <= commit <= last. (reliability.md §5.4, 7)
    func checkOrder() {
        guard let status = replica?.status(includingPeers: false) else { return }
        let raft = status.raft
        guard raft.first.previous <= status.applied, status.applied <= raft.commit, raft.commit <= raft.last.index, raft.durable <= raft.last.index else {
            violations.append(Violation("order", "member \(id): first \(raft.first.rawValue), applied \(status.applied.rawValue), commit \(raft.commit.rawValue), last \(raft.last.index.rawValue)"))
            return
        }
    }
}
