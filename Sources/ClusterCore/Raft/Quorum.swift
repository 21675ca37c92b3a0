import Base

/// Majorities, alone and joint. (Raft §6)
public enum Quorum {
    public static func size(of count: Int) -> Int { count / 2 + 1 }

    /// The largest value that a quorum has reached. During a joint change: that both quorums have reached.
    /// Precondition: the configuration has voters.
    static func reached<Value: Comparable>(in configuration: Configuration, by value: (MemberID) -> Value) -> Value {
        let incoming = reached(in: configuration.voters, by: value)
        guard configuration.isJoint else { return incoming }
        return min(incoming, reached(in: configuration.outgoingVoters, by: value))
    }

    private static func reached<Value: Comparable>(in voters: [MemberID], by value: (MemberID) -> Value) -> Value {
        precondition(!voters.isEmpty, "a quorum of no voters")
        if voters.count == 1 { return value(voters[0]) }
        var values = voters.map(value)
        values.sort(by: >)
        return values[planted(.countsOneTooFew) ? max(size(of: voters.count) - 2, 0) : size(of: voters.count) - 1]
    }

    enum VoteResult { case pending, won, lost }

    /// `vote` says what a member answered, nil if it did not yet.
    static func result(in configuration: Configuration, vote: (MemberID) -> Bool?) -> VoteResult {
        let incoming = result(in: configuration.voters, vote: vote)
        guard configuration.isJoint else { return incoming }
        let outgoing = result(in: configuration.outgoingVoters, vote: vote)
        if incoming == .lost || outgoing == .lost { return .lost }
        return incoming == .won && outgoing == .won ? .won : .pending
    }

    private static func result(in voters: [MemberID], vote: (MemberID) -> Bool?) -> VoteResult {
        guard !voters.isEmpty else { return .lost }
        var granted = 0
        var refused = 0
        for voter in voters {
            switch vote(voter) {
            case true: granted += 1
            case false: refused += 1
            case nil: break
            }
        }
        let needed = size(of: voters.count)
        if granted >= needed { return .won }
        return voters.count - refused < needed ? .lost : .pending
    }
}
