//! Ways to be wrong that the checker must find.

/// A bug to be built into the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A deposit is answered 200 and not stored.
    LosesOne,
    /// An envelope that was handed over vanishes.
    ForgetsWhatWasSeen,
    /// What was acknowledged comes back under its id.
    ComesBack,
    /// Two deposits, one after the other, get each other's ids.
    SwapsTwo,
    /// An envelope shows only after one above it was handed over.
    AppearsBehind,
    /// An envelope shows in another's mailbox as well.
    Leaks,
    /// What is held is stored again when it is left again.
    StoresTwice,
    /// What was acknowledged is stored again when it is left again.
    ForgetsDuplicates,
    /// The id of what was acknowledged last is given again.
    ReusesIds,
    /// One is counted that is not there.
    CountsOneMore,
    /// One that is there is not counted.
    CountsOneLess,
    /// The bytes of one are not counted.
    CountsFewerBytes,
    /// A content comes back shorter.
    Truncates,
    /// The proof is not kept.
    DropsMembers,
    /// Collecting after an id acknowledges what is below.
    CursorAcknowledges,
    /// An acknowledgement with another hash removes.
    IgnoresHashes,
    /// An acknowledgement removes in every mailbox.
    AcknowledgesEverywhere,
    /// What its owner has from elsewhere is handed over all the same.
    HandsOverWhatIsHad,
    /// Whoever names mail by its digest removes it, be it another's.
    TakesAnyDigest,
    /// What was refused is stored.
    StoresWhatItRefuses,
    /// More comes than was asked for.
    IgnoresTheLimit,
    /// Anybody gets mail.
    ServesStrangers,
    /// What is malformed is taken.
    TakesAnything,
    /// Answered before the commit: a crash takes the last deposits with it.
    AnswersBeforeTheCommit,
    /// A crash takes the last acknowledgements with it.
    ForgetsAcknowledgements,
}

impl Bug {
    pub(crate) const ALL: [Self; 25] = [
        Self::LosesOne,
        Self::ForgetsWhatWasSeen,
        Self::ComesBack,
        Self::SwapsTwo,
        Self::AppearsBehind,
        Self::Leaks,
        Self::StoresTwice,
        Self::ForgetsDuplicates,
        Self::ReusesIds,
        Self::CountsOneMore,
        Self::CountsOneLess,
        Self::CountsFewerBytes,
        Self::Truncates,
        Self::DropsMembers,
        Self::CursorAcknowledges,
        Self::IgnoresHashes,
        Self::AcknowledgesEverywhere,
        Self::HandsOverWhatIsHad,
        Self::TakesAnyDigest,
        Self::StoresWhatItRefuses,
        Self::IgnoresTheLimit,
        Self::ServesStrangers,
        Self::TakesAnything,
        Self::AnswersBeforeTheCommit,
        Self::ForgetsAcknowledgements,
    ];
}
