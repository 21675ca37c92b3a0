import Auth
import Base
import Raft
import Store

/// What a member's backend holds, loaded: the start of a `Replica`.
public struct ReplicaState {
    public var store: KeyValueStore
    public var leases: LeaseTable
    public var membership: Membership
    public var alarms: [Alarm]
    public var auth: AuthStore
    public var configuration: Configuration
    /// The last log entry that the backend reflects.
    public var applied: LogPosition
    /// Of everything applied so far.
    public var stateHash: StateHash
    /// Whom a member that joins was told of, until it has found itself in the table.
    public var contacts: [Member] = []
    public var downgrade: Downgrade?

    public enum LoadError: Error, Sendable, CustomStringConvertible {
        case store(StoreLoadError)
        case backend(BackendError)
        /// A table holds what no version writes.
        case corrupt(Table, String)
        public var description: String {
            switch self {
            case .store(.backend(let error)), .backend(let error): error.description
            case .store(.corrupt(let detail)): "the key table is damaged: \(detail)"
            case .corrupt(let table, let detail): "the \(table.name) table is damaged: \(detail)"
            }
        }
    }

    private static let appliedIndexKey = Array("consistent_index".utf8)
    private static let appliedTermKey = Array("term".utf8)
    private static let configurationKey = Array("confState".utf8)
    /// Ours, and gone once the member has joined.
    static let contactsKey = Array("quarterdeck_contacts".utf8)

    /// The facts that every commit carries, so that data and applied index are never apart. (etcd 3.5.0's incident)
    static func writeMeta(applied: LogPosition, configuration: Configuration, stateHash: StateHash, into batch: inout BackendBatch) {
        var index = ByteWriter(capacity: 8)
        index.writeBigEndian(applied.index.rawValue)
        var term = ByteWriter(capacity: 8)
        term.writeBigEndian(applied.term.rawValue)
        batch.put(.meta, appliedIndexKey, index.bytes)
        batch.put(.meta, appliedTermKey, term.bytes)
        batch.put(.meta, configurationKey, configuration.json())
        var hash = ByteWriter(capacity: 8)
        hash.writeBigEndian(stateHash.rawValue)
        batch.put(.meta, MetaKey.stateHash, hash.bytes)
    }

    /// The first commit of a new member: who belongs to the cluster.
    /// - Parameters:
    ///   - applied: where its log begins; zero for a new cluster, else where the snapshot stands that the member is restored from.
    ///   - stateHash: of what is there already, so that members that were restored from different snapshots are told apart.
    public static func bootstrap(_ members: [Member], applied: LogPosition = .zero, stateHash: StateHash = .initial) -> BackendBatch {
        var batch = BackendBatch()
        for member in members.sorted(by: { $0.id < $1.id }) {
            batch.put(.members, Membership.key(of: member.id), member.json())
        }
        writeMeta(applied: applied, configuration: Configuration(voters: members.filter { !$0.isLearner }.map(\.id),
                                                                 learners: members.filter(\.isLearner).map(\.id)), stateHash: stateHash, into: &batch)
        return batch
    }

    /// The first commit of a member that joins a cluster: it knows nothing but whom to talk to. Its tables come with the log, which
    /// says from its first entry on who the members are, or with a snapshot; so they equal everyone else's at the same index.
    public static func join(_ contacts: [Member]) -> BackendBatch {
        var batch = BackendBatch()
        batch.put(.meta, contactsKey, Member.encodeList(contacts))
        writeMeta(applied: .zero, configuration: Configuration(voters: []), stateHash: .initial, into: &batch)
        return batch
    }

    /// Where a backend stands, without loading it. Nil when it was never bootstrapped.
    public static func position(in reader: any BackendReader) throws(LoadError) -> SnapshotMetadata? {
        do {
            guard let index = try number(appliedIndexKey, in: reader) else { return nil }
            let term = try number(appliedTermKey, in: reader) ?? 0
            guard let raw = try reader.get(.meta, configurationKey, { [UInt8]($0) }) else {
                throw LoadError.corrupt(.meta, "no configuration")
            }
            let configuration: Configuration
            do { configuration = try Configuration.decode(json: raw) } catch { throw LoadError.corrupt(.meta, "configuration: \(error)") }
            return SnapshotMetadata(position: LogPosition(index: LogIndex(index), term: Term(term)), configuration: configuration)
        } catch let error as LoadError {
            throw error
        } catch let error as BackendError {
            throw .backend(error)
        } catch {
            preconditionFailure("untyped \(error)")
        }
    }

    /// Reads every table. Takes about a second for a million revisions, so not on a loop that carries heartbeats.
    public static func load(from reader: any BackendReader) throws(LoadError) -> ReplicaState {
        guard let position = try position(in: reader) else { throw .corrupt(.meta, "no applied index") }
        let stateHash: StateHash
        let found: UInt64??
        do { found = try reader.get(.meta, MetaKey.stateHash) { bigEndian($0) } } catch { throw .backend(error) }
        guard let hash = found ?? .some(0) else { throw .corrupt(.meta, "the state hash is no number") }
        stateHash = StateHash(rawValue: hash)
        let store: KeyValueStore
        do { store = try KeyValueStore.load(from: reader) } catch { throw .store(error) }
        var leases: LeaseTable
        do { leases = try LeaseTable.load(from: reader) } catch { throw .corrupt(.lease, "\(error)") }
        store.forEachLeasedKey { key, lease in
            if leases.contains(lease) { leases.attach(key, to: lease) }
        }
        var members: [Member] = []
        var removed: [MemberID] = []
        var contacts: [Member] = []
        var alarms: [Alarm] = []
        var auth = AuthStore.Loader()
        var downgrade: Downgrade?
        var fault: LoadError?
        do {
            try reader.scan(.members, from: []) { _, value in
                do { members.append(try Member.decode(json: [UInt8](value))) } catch { fault = .corrupt(.members, "\(error)") }
                return fault == nil
            }
            try reader.scan(.membersRemoved, from: []) { key, _ in
                guard let id = UInt64(String(decoding: key, as: UTF8.self), radix: 16) else {
                    fault = .corrupt(.membersRemoved, "a key that is no member id")
                    return false
                }
                removed.append(MemberID(id))
                return true
            }
            if let raw = try reader.get(.meta, contactsKey, { [UInt8]($0) }) {
                do { contacts = try Member.decodeList(raw) } catch { fault = .corrupt(.meta, "contacts: \(error)") }
            }
            if let raw = try reader.get(.cluster, Downgrade.key, { [UInt8]($0) }) {
                do { downgrade = try Downgrade.decode(json: raw) } catch { fault = .corrupt(.cluster, "downgrade: \(error)") }
            }
            try reader.scan(.alarm, from: []) { key, _ in
                do { alarms.append(try Alarm.decode(key: key)) } catch { fault = .corrupt(.alarm, "\(error)") }
                return fault == nil
            }
            for (table, part) in [(Table.auth, AuthTable.settings), (.authUsers, .users), (.authRoles, .roles)] where fault == nil {
                try reader.scan(table, from: []) { key, value in
                    do { try auth.take(part, key: key, value: value) } catch { fault = .corrupt(table, "\(error)") }
                    return fault == nil
                }
            }
        } catch { throw .backend(error) }
        if let fault { throw fault }
        guard Set(members.map(\.id)).count == members.count else { throw .corrupt(.members, "a member is there twice") }
        return ReplicaState(store: store, leases: leases, membership: Membership(members: members, removed: removed), alarms: alarms.sorted(),
                            auth: auth.finish(), configuration: position.configuration, applied: position.position, stateHash: stateHash, contacts: contacts, downgrade: downgrade)
    }

    /// nil when it is no number of eight bytes.
    private static func bigEndian(_ raw: UnsafeRawBufferPointer) -> UInt64? { raw.count == 8 ? raw.reduce(0) { $0 << 8 | UInt64($1) } : nil }

    /// No index or term gets beyond 2^62; the log and the peers' messages have the same bound.
    private static func number(_ name: [UInt8], in reader: any BackendReader) throws -> UInt64? {
        guard let found = try reader.get(.meta, name, { bigEndian($0) }) else { return nil }
        guard let number = found, number < 1 << 62 else { throw LoadError.corrupt(.meta, "\(String(decoding: name, as: UTF8.self)) is no index or term") }
        return number
    }
}
