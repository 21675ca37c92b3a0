import Base
import Log
import Raft
import Store

/// What a look at a stopped member's files found, without changing any of them.
public struct MemberInspection: Sendable {
    /// What is wrong, where.
    public struct Problem: Hashable, Sendable {
        /// A file, or a table of the store.
        public var place: String
        public var text: String
        public init(place: String, text: String) {
            self.place = place
            self.text = text
        }
    }
    public var problems: [Problem] = []
    /// What looks odd and is none: the next start deals with it.
    public var remarks: [String] = []

    public var identity: LogIdentity?
    /// Where the log is; nil: below the data directory.
    public var logDirectory: String?
    public var segments = 0
    public var entries: ClosedRange<LogIndex>?
    public var hardState: HardState?
    public var applied: LogPosition?
    public var stateHash: StateHash?
    public var members: [Member] = []
    public var store: StoreInspection?

    public var isSound: Bool { problems.isEmpty }

    /// What helps against any damage of one member; the others hold everything that was acknowledged.
    public static let remedy = "Remove this member from the cluster, clear its data directory and add it again; it gets everything from the others. "
        + "A cluster of one member has nobody to ask: restore its latest snapshot."
}

extension MemberFiles {
    /// Verifies every record of the log and of the store, and that they fit together.
    /// - Parameter progress: the part done, 0 to 1, of each of the two.
    /// - Throws: `Fault.unusable` when this is no member's directory, `.other` when it cannot be read.
    public func inspect(progress: (_ part: String, _ done: Double) -> Void = { _, _ in }) throws(Fault) -> MemberInspection {
        do {
            guard try disk.exists(dataDirectory) else { throw Fault.unusable("\(dataDirectory) does not exist") }
            if try disk.exists(dataDirectory + "/member/snap/db") {
                throw Fault.unusable("\(dataDirectory) holds the data of a real etcd member; this command reads Quarterdeck's own files "
                    + "(etcdutl snapshot status \(dataDirectory)/member/snap/db tells about that one)")
            }
            guard try disk.exists(dataDirectory + "/member") else { throw Fault.unusable("\(dataDirectory) holds no member: there is no folder named member in it") }
            try checkLogDirectory()
            var found = MemberInspection()
            found.logDirectory = logDirectory == MemberFiles.logDirectory(in: dataDirectory) ? nil : logDirectory
            let log = try inspectLog(into: &found) { progress("log", $0) }
            let (state, followsSnapshot) = try inspectStores(hasLog: log != nil, into: &found) { progress("store", $0) }
            if let state {
                inspectState(state, into: &found)
                if let content = log?.content { inspectFit(content, state, followsSnapshot: followsSnapshot, into: &found) }
                if log == nil, state.position.position != .zero {
                    found.problems.append(.init(place: logDirectory, text: "there is a store but no log"))
                }
            }
            if log == nil, state == nil, found.problems.isEmpty { throw Fault.unusable("\(dataDirectory) holds no member: it has neither a log nor a store") }
            return found
        } catch let fault as Fault {
            throw fault
        } catch {
            throw .other("\(dataDirectory) cannot be read: \(error)")
        }
    }

    // MARK: The log

    private func inspectLog(into found: inout MemberInspection, _ progress: (Double) -> Void) throws -> LogInspection? {
        guard try WriteAheadLog.exists(directory: logDirectory, disk: disk) else { return nil }
        let log = try WriteAheadLog.inspect(directory: logDirectory, disk: disk) { progress($1 == 0 ? 1 : Double($0) / Double($1)) }
        found.identity = log.identity
        found.segments = log.segments.count
        for damage in log.damage {
            switch damage {
            case .damaged(let segment, let offset, let detail): found.problems.append(.init(place: segment, text: "at offset \(offset): \(detail)"))
            case .foreign(let segment, let expected, let other): found.problems.append(.init(place: segment, text: "it belongs to \(other), the segments before it to \(expected)"))
            case .unsupported(let segment, let offset, let version):
                found.problems.append(.init(place: segment, text: "at offset \(offset): record format \(version), which this version cannot read"))
            default: found.problems.append(.init(place: logDirectory, text: damage.description))
            }
        }
        if let tail = log.unfinishedWrite {
            found.remarks.append("the log ends in an unfinished write of \(tail.bytesCut) bytes (\(tail.segment) at offset \(tail.offset)): it was never acknowledged, "
                + "and the next start cuts it off")
        }
        guard let content = log.content else { return log }
        found.hardState = content.hardState
        if let first = content.entries.first, let last = content.entries.last { found.entries = first.index...last.index }
        if content.last.term > content.hardState.term {
            found.problems.append(.init(place: logDirectory, text: "the last entry is of term \(content.last.term.rawValue), but the member knows only of term "
                + "\(content.hardState.term.rawValue)"))
        }
        if content.hardState.vote != .none, content.hardState.term == .zero {
            found.problems.append(.init(place: logDirectory, text: "a vote for \(content.hardState.vote) in term 0"))
        }
        for entry in content.entries where entry.kind == .command {
            let fault: DecodingFault? = entry.payload.withUnsafeBytes { raw in
                do throws(DecodingFault) {
                    _ = try Command.decodeHeader(raw)
                    return nil
                } catch { return error }
            }
            if let fault { found.problems.append(.init(place: logDirectory, text: "entry \(entry.index.rawValue) is no command: \(fault)")) }
        }
        return log
    }

    // MARK: The store

    private struct Loaded {
        var position: SnapshotMetadata
        var state: ReplicaState
        var place: String
        var hasStateHash: Bool
    }

    /// The store that the next start would take (`findStore` in the opening), and whether it superseded an older one.
    private func inspectStores(hasLog: Bool, into found: inout MemberInspection, _ progress: (Double) -> Void) throws -> (Loaded?, followsSnapshot: Bool) {
        var candidates: [(number: UInt64, backend: any Backend, reader: any BackendReader, position: SnapshotMetadata)] = []
        var isBroken = false
        for number in try disk.exists(dataDirectory + "/member/store") ? try stores.numbers().sorted(by: >) : [] {
            let place = "store \(number)"
            do {
                let backend = try stores.openForReading(number)
                let reader = try backend.makeReader()
                if let position = try ReplicaState.position(in: reader) {
                    candidates.append((number, backend, reader, position))
                } else {
                    found.remarks.append("\(place) is an incomplete copy, as an interrupted snapshot leaves it: the next start removes it")
                }
            } catch {
                if (error as? BackendError)?.code == BackendError.unfinishedCode {
                    found.remarks.append("\(place) was never written to, as an interrupted snapshot leaves it: the next start removes it")
                    continue
                }
                guard candidates.isEmpty else {
                    found.remarks.append("\(place) cannot be read, but is not needed: the next start removes it")
                    continue
                }
                isBroken = true
                found.problems.append(.init(place: place, text: MemberFiles.text(error)))
            }
        }
        progress(0)
        var best = 0
        for at in candidates.indices where candidates[at].position.position.index > candidates[best].position.position.index { best = at }
        let others = candidates.indices.filter { $0 != best }.map { candidates[$0].number }
        if !others.isEmpty { found.remarks.append("\(others.count == 1 ? "another store is" : "\(others.count) other stores are") left from a snapshot: the next start removes what is not needed") }
        guard !isBroken, candidates.indices.contains(best) else {
            if !isBroken, hasLog { found.problems.append(.init(place: dataDirectory + "/member/store", text: "there is a log but no store")) }
            progress(1)
            return (nil, false)
        }
        let (number, backend, reader, position) = candidates[best]
        var loaded: Loaded?
        do {
            loaded = try inspectStore(reader, position, "store \(number)", usedBytes: backend.size.usedBytes, into: &found, progress)
        } catch {
            found.problems.append(.init(place: "store \(number)", text: MemberFiles.text(error)))
        }
        progress(1)
        return (loaded, others.contains { $0 < number })
    }

    /// Without the remedy, which is said once.
    private static func text(_ error: any Error) -> String {
        if let error = error as? BackendError, error.isDamage {
            return error.message.split(separator: ";").first.map(String.init) ?? error.message
        }
        return "\(error)"
    }

    private func inspectStore(_ reader: any BackendReader, _ position: SnapshotMetadata, _ place: String, usedBytes: Int64, into found: inout MemberInspection,
                              _ progress: (Double) -> Void) throws -> Loaded? {
        // Records are not counted in advance; a guess from the file's size is good enough for a progress line.
        let expected = max(1, Double(usedBytes) / 300)
        let inspection = try StoreInspection.run(reader) { progress(min(0.9, Double($0) / expected)) }
        found.store = inspection
        for problem in inspection.problems { found.problems.append(.init(place: place, text: problem)) }
        if inspection.problemCount > inspection.problems.count {
            found.problems.append(.init(place: place, text: "and \(inspection.problemCount - inspection.problems.count) more of the kind"))
        }
        // The tables that nobody walked so far; reading is verifying.
        for table in Table.allCases where table != .key && table != .lease { try reader.scan(table, from: []) { _, _ in true } }
        let hash = try reader.get(.meta, MetaKey.stateHash) { $0.count }
        let state: ReplicaState
        do {
            state = try ReplicaState.load(from: reader)
        } catch {
            // What is wrong with keys and leases is told above, in more words.
            if case .corrupt(let table, _) = error, table != .lease { throw error }
            guard inspection.problemCount > 0 else { throw error }
            return nil
        }
        return Loaded(position: position, state: state, place: place, hasStateHash: hash == 8)
    }

    /// What the small tables say of each other.
    private func inspectState(_ loaded: Loaded, into found: inout MemberInspection) {
        func problem(_ text: String) { found.problems.append(.init(place: loaded.place, text: text)) }
        let state = loaded.state
        found.applied = state.applied
        found.stateHash = state.stateHash
        found.members = state.membership.members
        if !loaded.hasStateHash { problem("table meta: the state hash is missing") }
        if (state.applied.index == .zero) != (state.applied.term == .zero) {
            problem("table meta: applied entry \(state.applied.index.rawValue) of term \(state.applied.term.rawValue)")
        }
        if let identity = found.identity, state.membership.isRemoved(identity.member) {
            return found.remarks.append("this member was removed from its cluster and cannot come back: its data is of no use any more")
        }
        let members = state.membership.members
        if state.applied == .zero, members.isEmpty, state.configuration.everyone.isEmpty {
            return found.remarks.append("this member has not joined its cluster yet")
        }
        // Who leaves, or comes, belongs to one of the two for a while.
        guard !state.configuration.isJoint else { return }
        let configured = state.configuration.everyone
        for member in members where !configured.contains(member.id) { problem("member \(member.id) is in the list of members but has no part in the consensus") }
        for id in configured {
            guard let member = members.first(where: { $0.id == id }) else {
                problem("member \(id) takes part in the consensus but is not in the list of members")
                continue
            }
            let learns = state.configuration.learners.contains(id)
            if member.isLearner != learns {
                problem("member \(id) is a \(member.isLearner ? "learner" : "voter") in the list of members and a \(learns ? "learner" : "voter") in the consensus")
            }
        }
        if state.configuration.voters.isEmpty { problem("the consensus has no voters") }
        if let identity = found.identity, !members.contains(where: { $0.id == identity.member }) {
            problem("the log is that of member \(identity.member), who is not in the list of members")
        }
    }

    // MARK: Both together

    private func inspectFit(_ log: RecoveredLog, _ loaded: Loaded, followsSnapshot: Bool, into found: inout MemberInspection) {
        let applied = loaded.state.applied
        func problem(_ text: String) { found.problems.append(.init(place: logDirectory, text: text)) }
        if applied.index < log.start.index {
            return problem("the log begins behind entry \(log.start.index.rawValue), but the store holds only what was applied up to entry \(applied.index.rawValue)")
        }
        if log.term(at: applied.index) == applied.term { return }
        if followsSnapshot, applied.index > log.start.index {
            return found.remarks.append("the store comes from a snapshot that the log has not followed yet: the next start does that")
        }
        if let term = log.term(at: applied.index) {
            problem("entry \(applied.index.rawValue) is of term \(term.rawValue), but the store has applied one of term \(applied.term.rawValue)")
        } else {
            problem("the log ends at entry \(log.last.index.rawValue), but the store has applied entry \(applied.index.rawValue): the log has lost what it had acknowledged")
        }
    }
}

extension RecoveredLog {
    /// Nil for entries that are not there.
    func term(at index: LogIndex) -> Term? {
        if index == start.index { return start.term }
        guard index > start.index, let first = entries.first?.index, index >= first, index <= entries[entries.count - 1].index else { return nil }
        return entries[Int(index.rawValue - first.rawValue)].term
    }
}
