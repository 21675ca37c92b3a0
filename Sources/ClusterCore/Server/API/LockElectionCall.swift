import Base
import Replica
import Store
import Wire

/// A call of the Lock or Election service: what is asked of the member next, and what its answers come to. (etcd-api.md §10, §11)
///
/// A machine without sockets; `ClientLoop+LockElection` carries its steps out. The services are recipes over KV, Lease and Watch, etcd's: a queue is the
/// keys `NAME/LEASE`, each bound to its owner's lease, and the key that was created first has the turn. Whoever waits watches the one key before its
/// own, so a key that goes wakes one call. At any time one question or one watch is with the member.
final class LockElectionCall {
    enum Purpose {
        case lock
        case unlock(key: [UInt8])
        case campaign(value: [UInt8])
        case proclaim(LeaderKey, value: [UInt8])
        case resign(LeaderKey)
        case leader
        case observe
    }

    /// The proof of leadership that a caller brings.
    struct LeaderKey {
        var key: [UInt8]
        /// At which the key was created.
        var revision: Revision
        var lease: LeaseID
    }

    enum Next {
        case grantLease(seconds: Int64)
        case propose(Command.Kind, [UInt8], cost: Int)
        /// `range` is to be read of a linearizable snapshot.
        case read
        /// Events from the revision on; instead of the watch before.
        case watch(key: [UInt8], rangeEnd: [UInt8], from: Revision)
        /// For more of the watch.
        case wait
        case answer([UInt8])
        case fail(ServiceError)
    }

    private enum Stage {
        case starting
        case granting
        /// The transaction that puts the key, unless it is there.
        case entering
        /// The key was there: it gets the candidate's value.
        case revaluing
        /// Who is before it.
        case looking
        /// Until that one's key is deleted.
        case waiting
        /// The last question.
        case asking
        case ended
    }

    let purpose: Purpose
    private let name: [UInt8]
    private var lease: LeaseID
    /// The lease was granted for this call; its caller does not know it.
    private(set) var madeLease = false
    private var stage = Stage.starting
    /// The caller's key, and the revision at which it was created.
    private var key: [UInt8] = []
    private var created = Revision.zero
    /// Of the transaction that made the key.
    private var header = ResponseHeader()
    private let maxTxnOps: Int

    // The watch, for whoever carries it out.
    /// A watch stream is open at the member.
    var hasStream = false
    /// The running watcher; watchers of one stream are numbered from 1 on.
    var watch = WatchID(0)
    /// Responses of an Observe stream's watch that the member is not credited with, since the client does not read.
    var owed = (responses: 0, bytes: 0)
    /// The next read waits for the same reason.
    var isHeldBack = false
    /// The client left while its key was being put.
    private(set) var isOrphan = false

    /// Seconds that a lease lives which the server grants for a call without one. (etcd's session)
    private static let sessionSeconds: Int64 = 60

    init(_ purpose: Purpose, name: [UInt8], lease: LeaseID, maxTxnOps: Int) {
        self.purpose = purpose
        self.name = name
        self.lease = lease
        self.maxTxnOps = maxTxnOps
    }

    // MARK: Steps

    func begin() -> Next {
        switch purpose {
        case .lock, .campaign, .proclaim:
            guard lease == .none else { return withLease() }
            stage = .granting
            return .grantLease(seconds: LockElectionCall.sessionSeconds)
        case .resign(let leader):
            // etcd grants a lease here too when the key names none; nothing would come of it.
            stage = .asking
            return propose(deletion(of: leader.key, createdAt: leader.revision))
        case .unlock(let key):
            stage = .asking
            let request = DeleteRangeRequest(key: key)
            do throws(ServiceError) { try request.validate() } catch { return failed(error) }
            return .propose(.deleteRange, encoded { request.encode(into: &$0) }, cost: 0)
        case .leader, .observe:
            stage = .looking
            return .read
        }
    }

    private func withLease() -> Next {
        if case .proclaim(let leader, let value) = purpose {
            stage = .asking
            return propose(valuation(of: leader.key, createdAt: leader.revision, value))
        }
        key = prefix + hexadecimal(lease)
        stage = .entering
        let own = RangeRequest(key: key)
        var request = TxnRequest(compare: [isCreated(key, at: .zero)], success: [.put(PutRequest(key: key, lease: lease))], failure: [.range(own)])
        switch purpose {
        case .campaign(let value): request.success = [.put(PutRequest(key: key, value: value, lease: lease))]
        default:
            // An uncontended lock is one round.
            let first = RequestOp.range(queue(limit: 1, .ascending, keysOnly: true))
            request.success.append(first)
            request.failure.append(first)
        }
        return propose(request)
    }

    /// The member's response message.
    func answered(_ bytes: [UInt8]) -> Next {
        do throws(DecodingFault) {
            switch stage {
            case .granting:
                lease = LeaseID(try PBLeaseGrantResponse(decoding: bytes).id)
                madeLease = true
                return withLease()
            case .entering: return entered(try PBTxnResponse(decoding: bytes))
            case .revaluing:
                guard try PBTxnResponse(decoding: bytes).succeeded else { return failed(.electionNotLeader) }
                return lookAhead()
            case .asking: return try answer(bytes)
            case .starting, .looking, .waiting, .ended: preconditionFailure("an answer came to a call that is \(stage)")
            }
        } catch {
            preconditionFailure("the member's own answer cannot be decoded: \(error)")
        }
    }

    private func entered(_ response: PBTxnResponse) -> Next {
        header = ResponseHeader(response.header)
        created = header.revision
        if !response.succeeded {
            let own = response.responses[0].responseRange.kvs[0]
            created = Revision(own.createRevision)
            if case .campaign(let value) = purpose, [UInt8](own.value) != value {
                stage = .revaluing
                return propose(valuation(of: key, createdAt: created, value))
            }
        }
        if case .lock = purpose {
            let first = response.responses[1].responseRange.kvs.first
            if first.map({ $0.createRevision == created.rawValue }) ?? true { return haveTurn(header) }
        }
        return lookAhead()
    }

    private func lookAhead() -> Next {
        stage = .looking
        return .read
    }

    private func answer(_ bytes: [UInt8]) throws(DecodingFault) -> Next {
        stage = .ended
        let header: PBResponseHeader
        switch purpose {
        case .unlock: header = try PBDeleteRangeResponse(decoding: bytes).header
        case .proclaim:
            let response = try PBTxnResponse(decoding: bytes)
            guard response.succeeded else { return .fail(.electionNotLeader) }
            header = response.header
        default: header = try PBTxnResponse(decoding: bytes).header
        }
        return .answer(encoded { ResponseHeader(header).encodeAsField(into: &$0) })
    }

    private func haveTurn(_ header: ResponseHeader) -> Next {
        stage = .ended
        return .answer(encoded { writer in
            header.encodeAsField(into: &writer)
            guard case .campaign = purpose else { return writer.writeField(2, key) }
            writer.writeMessage(2) {
                $0.writeField(1, name)
                $0.writeField(2, key)
                $0.writeField(3, created.rawValue)
                $0.writeField(4, lease.rawValue)
            }
        })
    }

    // MARK: Reads

    /// What `read` wants to know.
    var range: RangeRequest {
        switch purpose {
        case .leader, .observe: return queue(limit: 1, .ascending)
        default:
            var range = queue(limit: 1, .descending, keysOnly: true)
            range.maxCreateRevision = Revision(created.rawValue - 1)
            return range
        }
    }

    /// Whoever waits also wants to know whether its own key is still there; it lies within `range`.
    var ownRange: RangeRequest? {
        switch purpose {
        case .lock, .campaign: RangeRequest(key: key, keysOnly: true)
        default: nil
        }
    }

    /// What the snapshot of `header`'s revision says to `range` and `ownRange`. `message`: what an Observe stream sends.
    func looked(_ found: RangeResult, own: RangeResult?, header: ResponseHeader) -> (message: [UInt8]?, next: Next) {
        let first = found.kvs.keyValues.first
        switch purpose {
        case .leader:
            stage = .ended
            return (nil, first == nil ? .fail(.electionNoLeader) : .answer(leader(found.kvs.bytes, header)))
        case .observe:
            stage = .waiting
            guard let first else { return (nil, .watch(key: prefix, rangeEnd: prefixEnd, from: header.revision.next)) }
            return (leader(found.kvs.bytes, header), .watch(key: first.key, rangeEnd: [], from: header.revision.next))
        default:
            if let first {
                stage = .waiting
                return (nil, .watch(key: first.key, rangeEnd: [], from: header.revision.next))
            }
            // The key may be gone with its lease, and may even have been made anew by another call.
            guard own?.kvs.keyValues.first?.createRevision == created else {
                stage = .ended
                if case .campaign = purpose { return (nil, .fail(.electionSessionExpired)) }
                return (nil, .fail(.lockSessionExpired))
            }
            if case .lock = purpose { return (nil, haveTurn(header)) }
            return (nil, haveTurn(self.header))
        }
    }

    // MARK: Events

    /// A response of the watch. `header`: cluster and member. `messages`: what an Observe stream sends.
    func watched(_ response: WatchResponse, header: ResponseHeader) -> (messages: [[UInt8]], next: Next) {
        guard stage == .waiting, response.watchID == watch || response.watchID == .none else { return ([], .wait) }
        if response.created && response.canceled { return ([], failed(ServiceError(.unknown, response.cancelReason))) }
        // History is gone that the watch still wanted: the present says as much.
        if response.canceled { return ([], lookAhead()) }
        guard case .observe = purpose else {
            return ([], response.events.contains { $0.isDelete } ? lookAhead() : .wait)
        }
        var messages: [[UInt8]] = []
        for event in response.events {
            guard let kv = try? PBKeyValue(decoding: event.kv) else { preconditionFailure("the store's own event cannot be decoded") }
            var header = header
            if isWatchingQueue {
                // The first key makes its owner the leader.
                if event.isDelete { continue }
                header.revision = Revision(kv.modRevision)
                return ([leader(field: event.kv, header)], .watch(key: [UInt8](kv.key), rangeEnd: [], from: header.revision.next))
            }
            if event.isDelete { return (messages, lookAhead()) }
            header.revision = response.headerRevision
            messages.append(leader(field: event.kv, header))
        }
        return (messages, .wait)
    }

    /// Set with each watch: of the whole queue, since it was empty.
    var isWatchingQueue = false

    // MARK: Ends

    /// The member refused the last question. etcd's services get the text of what went wrong underneath and not its code. (§10)
    func failed(_ error: ServiceError) -> Next { .fail(error == .stopped ? error : ServiceError(.unknown, error.message)) }

    /// The transaction that takes back what a call has put which ends before its turn; nil when there is nothing. The key of another call, made
    /// under the same lease, stays.
    func takeBack() -> [UInt8]? {
        switch stage {
        case .looking, .waiting:
            guard ownRange != nil else { return nil }
            stage = .ended
            return encoded { deletion(of: key, createdAt: created).encode(into: &$0) }
        default: return nil
        }
    }

    /// The client leaves. True: the answer to what runs has to be waited for, since it may put the key; then `enteredLate`.
    func leave() -> Bool {
        guard case .entering = stage else { return false }
        isOrphan = true
        return true
    }

    /// The answer came after the client had left. A key that was there before stays.
    func enteredLate(_ bytes: [UInt8]) -> [UInt8]? {
        guard let response = try? PBTxnResponse(decoding: bytes), response.succeeded else { return nil }
        created = Revision(response.header.revision)
        stage = .looking
        return takeBack()
    }

    // MARK: Leaves

    private var prefix: [UInt8] { name + [UInt8(ascii: "/")] }
    private var prefixEnd: [UInt8] { name + [UInt8(ascii: "/") + 1] }

    private func queue(limit: Int64, _ order: SortOrder, keysOnly: Bool = false) -> RangeRequest {
        RangeRequest(key: prefix, rangeEnd: prefixEnd, limit: limit, sortOrder: order, sortTarget: .createRevision, keysOnly: keysOnly)
    }

    private func isCreated(_ key: [UInt8], at revision: Revision) -> Compare {
        Compare(key: key, target: .createRevision, operand: .createRevision(revision.rawValue))
    }

    private func valuation(of key: [UInt8], createdAt revision: Revision, _ value: [UInt8]) -> TxnRequest {
        TxnRequest(compare: [isCreated(key, at: revision)], success: [.put(PutRequest(key: key, value: value, lease: lease))])
    }

    private func deletion(of key: [UInt8], createdAt revision: Revision) -> TxnRequest {
        TxnRequest(compare: [isCreated(key, at: revision)], success: [.deleteRange(DeleteRangeRequest(key: key))])
    }

    private func propose(_ request: TxnRequest) -> Next {
        do throws(ServiceError) { try request.validate(maxTxnOps: maxTxnOps) } catch { return failed(error) }
        return .propose(.txn, encoded { request.encode(into: &$0) }, cost: request.quotaCost)
    }

    private func encoded(_ body: (inout ByteWriter) -> Void) -> [UInt8] {
        var writer = ByteWriter(capacity: 128)
        body(&writer)
        return writer.bytes
    }

    /// `kvs`: one key-value as a RangeResponse has it, which is how a LeaderResponse has it too.
    private func leader(_ kvs: [UInt8], _ header: ResponseHeader) -> [UInt8] {
        encoded { writer in
            header.encodeAsField(into: &writer)
            writer.write(kvs)
        }
    }

    private func leader(field kv: [UInt8], _ header: ResponseHeader) -> [UInt8] {
        encoded { writer in
            header.encodeAsField(into: &writer)
            writer.writeTag(2, .lengthDelimited)
            writer.writeCounted(kv)
        }
    }

    /// As Go prints it: without padding, a negative id as a minus and its magnitude.
    private func hexadecimal(_ lease: LeaseID) -> [UInt8] { Array(String(lease.rawValue, radix: 16).utf8) }
}

extension ResponseHeader {
    init(_ message: PBResponseHeader) {
        self.init(clusterID: ClusterID(message.clusterID), memberID: MemberID(message.memberID), revision: Revision(message.revision),
                  raftTerm: Term(message.raftTerm))
    }
}
